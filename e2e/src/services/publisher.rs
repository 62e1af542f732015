//! Publishes the fixture over RTSP.
