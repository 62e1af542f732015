//! Frame by frame comparison of coded video.
