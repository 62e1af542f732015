"""A small STS service as others write it: python-socketio behind uvicorn.

Usage: server.py JOURNAL TONE_HZ TONE_DBFS HANG_UP_AFTER HOLD_SECONDS

Prints `listening on URL` when ready. Answers each fragment with a steady tone of its length, and
writes down what it sees as `echo-sts` does. Once, with HANG_UP_AFTER fragments answered, it holds
the next one for HOLD_SECONDS and then disconnects the worker instead of answering.
"""

import array
import asyncio
import base64
import io
import json
import math
import socket
import sys
import time
import wave

import socketio
import uvicorn

JOURNAL = open(sys.argv[1], "w", encoding="utf-8")
TONE_HZ, TONE_PEAK = float(sys.argv[2]), 10 ** (float(sys.argv[3]) / 20)
HANG_UP_AFTER, HOLD_SECONDS = int(sys.argv[4]), float(sys.argv[5])

STARTED = time.monotonic()
EPOCH_MS = time.time() * 1000

server = socketio.AsyncServer(async_mode="asgi", ping_interval=25, ping_timeout=10)
sessions = {}
hung_up = False
inits = 0


def journal(sid, direction, event, data=None, **more):
    """One line per event; the keys are those of `sts_protocol::JournalEntry`."""
    at_ms = (time.monotonic() - STARTED) * 1000
    session, data = sessions[sid], data or {}
    fragment_id = data.get("fragment_id")
    entry = {
        "time_ms": EPOCH_MS + at_ms,
        "at_ms": at_ms,
        "direction": direction,
        "event": event,
        "stream_id": session["stream_id"],
        "session": session.get("number"),
        "sequence": session["sequences"].get(fragment_id),
        "fragment_id": fragment_id,
        "status": data.get("status"),
        **more,
    }
    print(json.dumps(entry), file=JOURNAL, flush=True)


async def answer(sid, event, data, **more):
    journal(sid, "out", event, data, **more)
    await server.emit(event, data, to=sid)


@server.event
async def connect(sid, environ, auth):
    sessions[sid] = {"stream_id": environ["HTTP_X_STREAM_ID"], "sequences": {}, "answered": 0}
    journal(sid, "local", "connect", detail=environ["HTTP_X_WORKER_ID"])


@server.event
async def disconnect(sid, reason):
    journal(sid, "local", "disconnect", detail=reason)


@server.on("stream:init")
async def stream_init(sid, data):
    global inits
    inits += 1
    sessions[sid]["number"] = inits
    journal(sid, "in", "stream:init")
    capabilities = {"batch_processing": False, "async_delivery": True}
    await answer(sid, "stream:ready", {
        "stream_id": data["stream_id"], "session_id": sid,
        "max_inflight": data["max_inflight"], "capabilities": capabilities,
    })


@server.on("fragment:data")
async def fragment_data(sid, data):
    global hung_up
    session, audio, received = sessions[sid], data["audio"], time.monotonic()
    if "number" not in session:
        await answer(sid, "error", {
            "fragment_id": data["fragment_id"], "code": "STREAM_NOT_FOUND",
            "message": "no stream:init", "severity": "error", "retryable": False,
        })
        return
    session["sequences"][data["fragment_id"]] = data["sequence_number"]
    about = {"fragment_id": data["fragment_id"]}
    journal(sid, "in", "fragment:data", about, duration_ms=audio["duration_ms"])
    await answer(sid, "fragment:ack", {**about, "status": "queued", "queue_position": None})
    if session["answered"] == HANG_UP_AFTER and not hung_up:
        hung_up = True
        await asyncio.sleep(HOLD_SECONDS)
        journal(sid, "local", "simulated_disconnect")
        await server.disconnect(sid)
        return
    dubbed = tone(audio)
    await answer(sid, "fragment:processed", {
        **about, "stream_id": data["stream_id"], "sequence_number": data["sequence_number"],
        "status": "success", "processing_time_ms": (time.monotonic() - received) * 1000,
        "dubbed_audio": dubbed, "transcript": None, "translated_text": None,
        "stage_timings": None, "error": None, "metadata": None,
    }, duration_ms=dubbed["duration_ms"])
    session["answered"] += 1


@server.on("fragment:ack")
async def fragment_ack(sid, data):
    journal(sid, "in", "fragment:ack", data)


@server.on("stream:end")
async def stream_end(sid, data):
    journal(sid, "in", "stream:end")
    answered = sessions[sid]["answered"]
    await answer(sid, "stream:complete", {
        "stream_id": data["stream_id"], "total_fragments": answered, "total_duration_ms": 0,
        "statistics": {"success_count": answered, "partial_count": 0, "failed_count": 0},
    })


def tone(audio):
    """A steady tone as long as the audio, in WAV."""
    rate, channels = audio["sample_rate_hz"], audio["channels"]
    samples = array.array("h")
    for n in range(round(audio["duration_ms"] * rate / 1000)):
        value = round(32767 * TONE_PEAK * math.sin(math.tau * TONE_HZ * n / rate))
        samples.extend([value] * channels)
    if sys.byteorder == "big":
        samples.byteswap()
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((channels, 2, rate, 0, "NONE", None))
        out.writeframes(samples.tobytes())
    data = base64.b64encode(file.getvalue()).decode()
    return {"format": "wav", "sample_rate_hz": rate, "channels": channels,
            "duration_ms": audio["duration_ms"], "data_base64": data}


async def main():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(socketio.ASGIApp(server), log_level="warning",
                            timeout_graceful_shutdown=1)
    await uvicorn.Server(config).serve(sockets=[listener])


asyncio.run(main())
