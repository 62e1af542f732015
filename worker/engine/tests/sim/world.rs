//! Virtual time, and the carrying of facts and orders.

use crate::reference::Reference;
use dub_engine::session::Load;
use dub_engine::{At, Event, Level, LinkId, Session, SessionConfig, SessionFact, SessionOrder};
use std::collections::BTreeMap;
use std::time::Duration;

/// The other side: everything the session gives orders to.
pub(crate) trait Peer: Sized {
    /// Carries out an order; answers come as facts put on the agenda.
    fn on_output(&mut self, at: At, output: &SessionOrder, agenda: &mut Agenda<Self>);

    /// Whether what was put on the wire of `link` still arrives.
    fn delivers(&self, link: LinkId) -> bool;
}

/// Something a peer does when the time has come.
pub(crate) type Act<P> = Box<dyn FnOnce(&mut P, At, &mut Agenda<P>)>;

/// What is going to happen.
pub(crate) enum Item<P: Peer> {
    /// Told to the session in any case.
    Tell(SessionFact),
    /// On the wire of a link: told if the link still delivers then.
    Wire(LinkId, SessionFact),
    /// Something the peer does.
    Act(Act<P>),
}

/// Everything that is going to happen, in order.
pub(crate) struct Agenda<P: Peer> {
    items: BTreeMap<(At, u64), Item<P>>,
    next: u64,
}

impl<P: Peer> Agenda<P> {
    pub(crate) fn put(&mut self, at: At, item: Item<P>) {
        self.next += 1;
        self.items.insert((at, self.next), item);
    }

    pub(crate) fn tell(&mut self, at: At, input: SessionFact) {
        self.put(at, Item::Tell(input));
    }

    pub(crate) fn wire(&mut self, at: At, link: LinkId, input: SessionFact) {
        self.put(at, Item::Wire(link, input));
    }
}

pub(crate) struct World<P: Peer> {
    pub(crate) now: At,
    pub(crate) session: Session,
    pub(crate) peer: P,
    pub(crate) agenda: Agenda<P>,
    pub(crate) reference: Reference,
    /// Lines of the timeline; `None`: not wanted.
    pub(crate) timeline: Option<Vec<String>>,
    /// Events and endings, for counting what happened.
    pub(crate) heard: Vec<SessionOrder>,
    /// The most of each that was ever held.
    pub(crate) most_load: Load,
    /// Loudest event so far.
    pub(crate) loudest: Level,
    steps: u64,
}

impl<P: Peer> World<P> {
    pub(crate) fn new(config: &SessionConfig, peer: P) -> Self {
        let mut world = Self {
            now: At::ZERO,
            session: Session::new(config.clone()),
            peer,
            agenda: Agenda {
                items: BTreeMap::new(),
                next: 0,
            },
            reference: Reference::new(config.clone()),
            timeline: None,
            heard: Vec::new(),
            most_load: Load::default(),
            loudest: Level::Debug,
            steps: 0,
        };
        world.agenda.tell(At::ZERO, SessionFact::Start);
        world
    }

    /// Segments `0..count`, one every `every`, then the end of the input.
    pub(crate) fn segments(&mut self, count: u64, every: Duration) {
        let mut at = At::ZERO;
        for batch in 0..count {
            at = at + every;
            self.agenda.tell(
                at,
                SessionFact::SegmentReady {
                    batch,
                    sendable: true,
                    bytes: 1_000,
                },
            );
        }
        self.agenda
            .tell(at + Duration::from_millis(100), SessionFact::InputEnded);
    }

    /// Runs until nothing is left to happen.
    pub(crate) fn run(&mut self) {
        const LIMIT: At = At::from_millis(4 * 3_600_000);
        while let Some(at) = self.next_moment() {
            assert!(at < LIMIT, "never came to rest");
            self.steps += 1;
            assert!(self.steps < 1_000_000, "turns in circles at {at}");
            self.step(at);
        }
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    fn next_moment(&self) -> Option<At> {
        let item = self.agenda.items.keys().next().map(|(at, _)| *at);
        let wake = self.session.poll_timeout();
        item.into_iter().chain(wake).min()
    }

    fn step(&mut self, at: At) {
        assert!(
            at >= self.now,
            "the session wants to be woken in the past: {at} at {}",
            self.now
        );
        self.now = at;
        self.reference.advance(at);
        // A fact at the very moment of a wake-up: a driver may see either first, and it must not
        // matter, because the session does what is due before it takes the fact in.
        let item_now = self
            .agenda
            .items
            .keys()
            .next()
            .is_some_and(|(due, _)| *due <= at);
        let wake_now = self.session.poll_timeout().is_some_and(|due| due <= at);
        let mut driven = true;
        if wake_now && (!item_now || self.steps.is_multiple_of(2)) {
            self.session.handle_timeout(at);
        } else if let Some((_, item)) = self.agenda.items.pop_first() {
            match item {
                Item::Tell(input) => self.tell(input),
                Item::Wire(link, input) if self.peer.delivers(link) => self.tell(input),
                Item::Wire(..) => driven = false,
                Item::Act(act) => {
                    act(&mut self.peer, at, &mut self.agenda);
                    driven = false;
                }
            }
        }
        while let Some(output) = self.session.poll_order() {
            self.reference.output(at, &output);
            self.note(&output);
            self.peer.on_output(at, &output, &mut self.agenda);
        }
        // The reference is ahead of a session that was not told that time has passed.
        if driven {
            self.reference.compare(at, &self.session);
        }
        let (load, most) = (self.session.load(), &mut self.most_load);
        most.waiting = most.waiting.max(load.waiting);
        most.out = most.out.max(load.out);
        most.checking = most.checking.max(load.checking);
        most.unresolved = most.unresolved.max(load.unresolved);
        most.remembered = most.remembered.max(load.remembered);
    }

    fn tell(&mut self, input: SessionFact) {
        self.reference.input(self.now, &input);
        if let Some(timeline) = &mut self.timeline {
            match &input {
                SessionFact::SegmentReady { batch, .. } => {
                    timeline.push(format!("{} < segment_ready batch={batch}", self.now));
                }
                SessionFact::InputEnded => timeline.push(format!("{} < input_ended", self.now)),
                _ => {}
            }
        }
        self.session.handle(self.now, input);
    }

    fn note(&mut self, output: &SessionOrder) {
        if let SessionOrder::Event(event) = output {
            self.loudest = self.loudest.max(event.level());
        }
        if matches!(output, SessionOrder::Event(_) | SessionOrder::Drained(_)) {
            self.heard.push(output.clone());
        }
        let Some(timeline) = &mut self.timeline else {
            return;
        };
        let line = match output {
            // Said by an event as well, or too much detail.
            SessionOrder::Connect { .. }
            | SessionOrder::Send { .. }
            | SessionOrder::Decode { .. }
            | SessionOrder::Forget { .. }
            | SessionOrder::Drained(_)
            | SessionOrder::Event(Event::FragmentAcked { .. }) => return,
            SessionOrder::Event(event) => event.to_string(),
            SessionOrder::Init { link } => format!("> init link={link}"),
            SessionOrder::Applied { link, .. } => format!("> applied link={link}"),
            SessionOrder::Resolve { batch, with } => match with {
                dub_engine::Resolution::Dubbed { .. } => format!("> resolve batch={batch} dubbed"),
                dub_engine::Resolution::Original(reason) => {
                    format!("> resolve batch={batch} original {reason}")
                }
            },
            SessionOrder::End { link } => format!("> end link={link}"),
            SessionOrder::Disconnect { link } => format!("> disconnect link={link}"),
        };
        timeline.push(format!("{} {line}", self.now));
    }
}
