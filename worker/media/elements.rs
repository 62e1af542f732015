// THE list of the GStreamer elements the worker makes: variant, name, plugin, plugin set, what for.
//
// The worker reads it as the type of what `make()` takes (an element nobody makes is dead code to
// the compiler); `cargo xtask setup`, `doctor` and the check of flake.nix read the same lines.
elements! {
    // Any pipeline.
    Capsfilter "capsfilter" "coreelements" CORE "fixes a format";
    Appsrc "appsrc" "app" BASE "media from our code";
    Appsink "appsink" "app" BASE "media to our code";
    Audioconvert "audioconvert" "audioconvert" BASE "sample formats";
    Audioresample "audioresample" "audioresample" BASE "sample rates";
    // Input.
    Rtspsrc "rtspsrc" "rtsp" GOOD "RTSP input";
    Rtph264depay "rtph264depay" "rtp" GOOD "H.264 out of RTP";
    Rtpmp4gdepay "rtpmp4gdepay" "rtp" GOOD "AAC out of RTP";
    Rtpmp4adepay "rtpmp4adepay" "rtp" GOOD "AAC out of RTP, the LATM way";
    H264parse "h264parse" "videoparsersbad" BAD "H.264 access units";
    Aacparse "aacparse" "audioparsers" GOOD "AAC frames";
    Decodebin "decodebin" "playback" BASE "decodes input audio that is no plain AAC";
    // Dubbed audio.
    Qtdemux "qtdemux" "isomp4" GOOD "dubbed audio in M4A";
    Wavparse "wavparse" "wavparse" GOOD "dubbed audio in WAV";
    Oggdemux "oggdemux" "ogg" BASE "dubbed audio in Ogg";
    Mpegaudioparse "mpegaudioparse" "audioparsers" GOOD "dubbed audio in MP3";
    Flacparse "flacparse" "audioparsers" GOOD "dubbed audio in FLAC";
    AvdecAac "avdec_aac" "libav" LIBAV "AAC decoder";
    AvdecMp3 "avdec_mp3" "libav" LIBAV "MP3 decoder";
    AvdecFlac "avdec_flac" "libav" LIBAV "FLAC decoder";
    Opusdec "opusdec" "opus" BASE "Opus in Ogg";
    Vorbisdec "vorbisdec" "vorbis" BASE "Vorbis in Ogg";
    Mulawdec "mulawdec" "mulaw" GOOD "dubbed audio of telephones";
    Alawdec "alawdec" "alaw" GOOD "dubbed audio of telephones";
    Scaletempo "scaletempo" "audiofx" GOOD "dubs at another speed";
    // Output.
    Voaacenc "voaacenc" "voaacenc" BAD "AAC encoder";
    Rtmp2sink "rtmp2sink" "rtmp2" BAD "RTMP output";
    Mp4mux "mp4mux" "isomp4" GOOD "segment files";
    Filesink "filesink" "coreelements" CORE "segment files";
}
