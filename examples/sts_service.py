"""A small STS service: speaks protocol 1.0 and hands each fragment back.  pip install python-socketio uvicorn

Replace `dub` by your own speech-to-speech model.  python sts_service.py [PORT]
"""
import asyncio
import sys
import time
import uuid

import socketio
import uvicorn

# Fragments are megabytes of base64; the library's default of 1 MB cuts the connection.
server = socketio.AsyncServer(async_mode="asgi", max_http_buffer_size=50 << 20)
streams = {}


async def dub(audio, config):
    """Audio in, audio of the other language out: the same fields, any of m4a, wav, mp3, ogg, pcm_s16le."""
    return audio


@server.on("stream:init")
async def init(sid, message):
    stream = {"id": message["stream_id"], "config": message["config"], "queue": asyncio.Queue(), "done": 0, "ms": 0}
    stream["task"] = asyncio.create_task(work(sid, stream))
    streams[sid] = stream
    await server.emit("stream:ready", {
        "stream_id": stream["id"], "session_id": str(uuid.uuid4()),
        "max_inflight": min(message["max_inflight"], 3),
        "capabilities": {"batch_processing": False, "async_delivery": True},
    }, to=sid)


@server.on("fragment:data")
async def fragment(sid, message):
    await server.emit("fragment:ack", {"fragment_id": message["fragment_id"], "status": "queued"}, to=sid)
    await streams[sid]["queue"].put(message)


async def work(sid, stream):
    """One after the other, so that answers go out in order."""
    while (message := await stream["queue"].get()) is not None:
        started = time.monotonic()
        answer = {key: message[key] for key in ("fragment_id", "stream_id", "sequence_number")}
        try:
            answer |= {"status": "success", "dubbed_audio": await dub(message["audio"], stream["config"])}
        except Exception as error:  # The worker plays the original instead.
            answer |= {"status": "failed", "error": {"code": "MODEL_ERROR", "message": str(error), "retryable": True}}
        answer["processing_time_ms"] = int((time.monotonic() - started) * 1000)
        stream["done"] += 1
        stream["ms"] += message["audio"]["duration_ms"]
        await server.emit("fragment:processed", answer, to=sid)
    await server.emit("stream:complete", {
        "stream_id": stream["id"], "total_fragments": stream["done"], "total_duration_ms": stream["ms"],
        "statistics": {"success_count": stream["done"], "partial_count": 0, "failed_count": 0,
                       "avg_processing_time_ms": 0, "p95_processing_time_ms": 0},
    }, to=sid)


@server.on("stream:end")
async def end(sid, message):
    await streams[sid]["queue"].put(None)


@server.event
async def disconnect(sid, *reason):
    if stream := streams.pop(sid, None):
        stream["task"].cancel()


if __name__ == "__main__":
    uvicorn.run(socketio.ASGIApp(server), host="127.0.0.1", port=int(sys.argv[1] if len(sys.argv) > 1 else 8080), ws="websockets")
