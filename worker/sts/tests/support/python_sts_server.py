"""The STS service as others write it: python-socketio behind uvicorn.

Prints `listening PORT`, serves until its standard input ends. One line on standard output per
event, so that a test can see what arrived. Options: ping interval and timeout in seconds.
"""

import asyncio
import json
import os
import socket
import sys
import threading

import socketio
import uvicorn

PING = (float(sys.argv[1]), float(sys.argv[2]))

server = socketio.AsyncServer(async_mode="asgi", ping_interval=PING[0], ping_timeout=PING[1])
sessions = {}


def say(*what):
    print(*what, flush=True)


@server.event
async def connect(sid, environ, auth):
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
    await server.emit(
        "fragment:processed",
        {**about, "stream_id": data["stream_id"], "sequence_number": data["sequence_number"],
         "status": "success", "processing_time_ms": 1.5, "dubbed_audio": data["audio"],
         "transcript": None, "translated_text": None, "stage_timings": None, "error": None,
         "metadata": None},
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
    """Orders of the test, one per line: `drop` ends every session."""
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
