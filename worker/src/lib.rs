//! Live dubbing worker: RTSP in, speech-to-speech over Socket.IO, RTMP out.
