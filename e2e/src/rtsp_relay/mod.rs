//! A verbatim RTSP relay: the RTSP half of the default media server.
