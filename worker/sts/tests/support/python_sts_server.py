"""The STS service as others write it: python-socketio behind uvicorn.

Prints `listening PORT`, serves until its standard input ends. One line on standard output per
event, so that a test can see what arrived. Options: ping interval and timeout in seconds, then any of
`limit=BYTES` (largest message), `refuse` (nobody is let in), `early` (the same, with a word before it), `bytes` (audio as bytes), `odd` (numbers
that are none and half a character in every answer).
"""

import asyncio
import base64
import json
import os
import socket
import sys
import threading
import time

import socketio
import uvicorn

PING = (float(sys.argv[1]), float(sys.argv[2]))
OPTIONS = dict(option.partition("=")[::2] for option in sys.argv[3:])

server = socketio.AsyncServer(async_mode="asgi", ping_interval=PING[0], ping_timeout=PING[1],
                              max_http_buffer_size=int(OPTIONS.get("limit", 1_000_000)))
sessions = {}


def say(*what):
    print(*what, flush=True)


@server.event
async def connect(sid, environ, auth):
    if "early" in OPTIONS:
        await server.emit("error", {"code": "AUTH_FAILED", "message": "no licence"}, to=sid)
        return False
    if "refuse" in OPTIONS:
        return False
    token = (auth or {}).get("token")
    if token == "bad":
        raise socketio.exceptions.ConnectionRefusedError("AUTH_FAILED: bad token")
    sessions[sid] = None
    say("connect", environ.get("HTTP_X_STREAM_ID"), environ.get("HTTP_X_WORKER_ID"))


@server.event
async def disconnect(sid, *reason):
    sessions.pop(sid, None)
    say("disconnect")


@server.on("stream:init")
async def init(sid, data):
    sessions[sid] = {"stream_id": data["stream_id"], "next": 0}
    say("init", data["config"]["target_language"])
    await server.emit(
        "stream:ready",
        {"stream_id": data["stream_id"], "session_id": sid, "max_inflight": data["max_inflight"],
         "capabilities": {"batch_processing": False, "async_delivery": True}},
        to=sid,
    )


@server.on("fragment:data")
async def fragment(sid, data):
    session = sessions[sid]
    if session is None or data["sequence_number"] != session["next"]:
        await server.emit("error", {"code": "INVALID_SEQUENCE", "message": "not the next"}, to=sid)
        return
    session["next"] += 1
    about = {"fragment_id": data["fragment_id"]}
    await server.emit("fragment:ack", {**about, "status": "queued", "queue_position": None}, to=sid)
    await asyncio.sleep(0)
    audio, odd = data["audio"], "odd" in OPTIONS
    if "bytes" in OPTIONS:
        audio = {**audio, "data_base64": base64.b64decode(audio["data_base64"])}
    await server.emit(
        "fragment:processed",
        {**about, "stream_id": data["stream_id"], "sequence_number": data["sequence_number"],
         "status": "success", "processing_time_ms": float("nan") if odd else 1.5,
         "dubbed_audio": audio, "transcript": "good \ud83d" if odd else None,
         "translated_text": None, "stage_timings": {"tts_ms": float("-inf")} if odd else None,
         "error": None, "metadata": None},
        to=sid,
    )


@server.on("fragment:ack")
async def applied(sid, data):
    say("applied", data["fragment_id"])


@server.on("stream:end")
async def end(sid, data):
    session = sessions[sid]
    statistics = {"success_count": session["next"], "partial_count": 0, "failed_count": 0}
    await server.emit(
        "stream:complete",
        {"stream_id": data["stream_id"], "total_fragments": session["next"],
         "total_duration_ms": 0, "statistics": statistics},
        to=sid,
    )


async def orders():
    """Orders of the test, one per line: `drop` ends every session, `block S` stands still for S seconds."""
    loop = asyncio.get_running_loop()
    lines = asyncio.Queue()

    def read():
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.strip())
        # The test is gone, however it ended.
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        order = await lines.get()
        if order == "drop":
            for sid in list(sessions):
                await server.disconnect(sid)
        elif order.startswith("block "):
            say("blocked")
            time.sleep(float(order.removeprefix("block ")))
        else:
            say("unknown order", json.dumps(order))


async def main():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    config = uvicorn.Config(socketio.ASGIApp(server), log_level="error",
                            timeout_graceful_shutdown=1)
    serving = asyncio.create_task(uvicorn.Server(config).serve(sockets=[listener]))
    asyncio.create_task(orders())
    say("listening", listener.getsockname()[1])
    await serving


asyncio.run(main())
