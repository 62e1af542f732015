//! The sockets of one connection: reads requests and frames, writes replies and frames.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use rtsp_types::{Message, ParseError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::timeout,
};

use super::{
    hub::{Frame, Hub},
    session::{Session, Then},
};

/// Largest request (an announcement with its description).
const LARGEST_REQUEST: usize = 64 * 1024;
/// A connection must say something by then; later it may be silent for as long as it likes, because
/// the publisher holds its first packet until a reader is there.
const FIRST_WORD: Duration = Duration::from_secs(30);
/// A peer that takes nothing for so long is gone.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// Replies that may wait; a client sends the next request after the reply.
const REPLY_QUEUE: usize = 16;

enum Order {
    Write(Vec<u8>),
    Send(mpsc::Receiver<Frame>),
    StopSending,
    Close,
}

/// Serves a connection to its end.
pub(super) async fn serve(socket: TcpStream, id: u64, hub: Arc<Hub>) -> Result<()> {
    socket.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    let (input, output) = socket.into_split();
    let (orders, received) = mpsc::channel(REPLY_QUEUE);
    let mut session = Session::new(id);
    let outcome = tokio::select! {
        read = read(input, &mut session, &hub, &orders) => read,
        written = write(output, received) => written,
    };
    session.end(&hub);
    outcome
}

async fn read(
    mut input: OwnedReadHalf,
    session: &mut Session,
    hub: &Hub,
    orders: &mpsc::Sender<Order>,
) -> Result<()> {
    let mut buffer = Vec::with_capacity(LARGEST_REQUEST);
    let first = timeout(FIRST_WORD, input.read_buf(&mut buffer)).await;
    let mut count = first.context("it said nothing")?.context("cannot read")?;
    while count > 0 {
        let mut done = 0;
        while let Some(used) = take(&buffer[done..], session, hub, orders).await? {
            done += used;
        }
        buffer.drain(..done);
        if buffer.len() > LARGEST_REQUEST {
            bail!("a request of more than {LARGEST_REQUEST} bytes");
        }
        count = input.read_buf(&mut buffer).await.context("cannot read")?;
    }
    Ok(())
}

/// Handles what the buffer starts with; how long that was, or `None` if it is not complete.
async fn take(
    buffer: &[u8],
    session: &mut Session,
    hub: &Hub,
    orders: &mpsc::Sender<Order>,
) -> Result<Option<usize>> {
    if let [b'$', rest @ ..] = buffer {
        let [channel, high, low, rest @ ..] = rest else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        session.on_data(*channel, payload);
        return Ok(Some(4 + length));
    }
    let (message, used) = match Message::<Vec<u8>>::parse(buffer) {
        Ok(parsed) => parsed,
        Err(ParseError::Incomplete(_)) => return Ok(None),
        Err(ParseError::Error) => bail!("not RTSP"),
    };
    // Responses are answers to requests that we never send.
    if let Message::Request(request) = message {
        let (response, then) = session.handle(hub, &request);
        let mut reply = Vec::new();
        response
            .write(&mut reply)
            .context("cannot write the reply")?;
        let order = match then {
            Then::GoOn => None,
            Then::Send(frames) => Some(Order::Send(frames)),
            Then::StopSending => Some(Order::StopSending),
            Then::Close => Some(Order::Close),
        };
        for order in std::iter::once(Order::Write(reply)).chain(order) {
            orders.send(order).await.context("the writer is gone")?;
        }
    }
    Ok(Some(used))
}

/// Writes replies as they come and, between them, frames. Ends when told to, or when the frames
/// end because the publisher did.
async fn write(mut output: OwnedWriteHalf, mut orders: mpsc::Receiver<Order>) -> Result<()> {
    let mut frames: Option<mpsc::Receiver<Frame>> = None;
    loop {
        tokio::select! {
            // Replies first: the answer to PLAY has to be there before the first frame.
            biased;
            order = orders.recv() => match order {
                Some(Order::Write(bytes)) => put(&mut output, &bytes).await?,
                Some(Order::Send(more)) => frames = Some(more),
                Some(Order::StopSending) => frames = None,
                Some(Order::Close) | None => break,
            },
            frame = next(&mut frames) => match frame {
                Some(frame) => put(&mut output, &frame).await?,
                None => break,
            },
        }
    }
    timeout(WRITE_PATIENCE, output.shutdown())
        .await
        .context("closing took too long")??;
    Ok(())
}

async fn next(frames: &mut Option<mpsc::Receiver<Frame>>) -> Option<Frame> {
    match frames {
        Some(frames) => frames.recv().await,
        None => std::future::pending().await,
    }
}

async fn put(output: &mut OwnedWriteHalf, bytes: &[u8]) -> Result<()> {
    let written = timeout(WRITE_PATIENCE, output.write_all(bytes)).await;
    written
        .context("the peer takes nothing")?
        .context("cannot write")
}
