//! THE list of what the project needs from the system.
//!
//! `setup` installs from it, `doctor` reports on it, the check before each run refuses by it, and
//! `tidy` holds `flake.nix` (which attributes it names) against it. The elements that the worker
//! makes come from its own list, worker/media/elements.rs; all else is added here and nowhere else.

/// What must be there, as a fact that can be looked up without linking anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fact {
    /// An executable on `PATH`.
    Program(&'static str),
    /// A library with headers, by its pkg-config name.
    Library(&'static str),
    /// A GStreamer element that `gst-inspect-1.0` lists, and the plugin it comes in.
    Element {
        name: &'static str,
        plugin: &'static str,
    },
    /// A module file of nginx, looked for where distributions put them.
    NginxModule(&'static str),
    /// A GIO module (they carry TLS for GStreamer's network elements).
    GioModule(&'static str),
    /// A module that `python3` imports.
    PythonModule(&'static str),
}

/// When a requirement applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// To compile the workspace.
    Build,
    /// To run the worker and the suite.
    Run,
    /// Only when the default media server stands in for MediaMTX.
    DefaultServer,
    /// Only when MediaMTX was asked for by name, and for the bench.
    MediaMtx,
    /// To test against an STS service written in Python; see `python`.
    Python,
    /// For the scenario `fleet`, which is skipped without it.
    Fleet,
    /// To check what is in `deploy/` with the tools of its places; without it their checks are skipped.
    Deploy,
    /// To look at the report as a person does; without it those tests are skipped.
    Browser,
}

impl Need {
    /// Where it is missing something is skipped, and said so; in CI it must be there.
    pub(crate) const OPTIONAL: [Self; 4] = [Self::Python, Self::Fleet, Self::Deploy, Self::Browser];
}

/// One thing the system must provide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requirement {
    pub(crate) fact: Fact,
    pub(crate) need: Need,
    /// Debian and Ubuntu package; `None` where no package exists.
    pub(crate) debian: Option<&'static str>,
    /// Attribute of nixpkgs; `None` where the Nix way does without it.
    pub(crate) nix: Option<&'static str>,
    /// What the project does with it, for a person.
    pub(crate) purpose: &'static str,
}

impl Requirement {
    /// The name a person would search for.
    pub(crate) fn name(&self) -> &'static str {
        match self.fact {
            Fact::Program(name)
            | Fact::Library(name)
            | Fact::Element { name, .. }
            | Fact::NginxModule(name)
            | Fact::GioModule(name)
            | Fact::PythonModule(name) => name,
        }
    }

    /// What kind of thing it is, for a person.
    pub(crate) fn kind(&self) -> &'static str {
        match self.fact {
            Fact::Program(_) => "program",
            Fact::Library(_) => "library",
            Fact::Element { .. } => "GStreamer element",
            Fact::NginxModule(_) => "nginx module",
            Fact::GioModule(_) => "GIO module",
            Fact::PythonModule(_) => "Python module",
        }
    }
}

/// Everything, in the order in which `doctor` shows it.
pub(crate) fn requirements() -> impl Iterator<Item = &'static Requirement> {
    OURS.iter().chain(MADE)
}

#[rustfmt::skip] // One line each: this is a table, and it is read as one.
const OURS: &[Requirement] = &[
    // Programs.
    program("pkg-config", Need::Build, Some("pkg-config"), Some("pkg-config"), "finds the libraries below"),
    program("gst-inspect-1.0", Need::Run, Some("gstreamer1.0-tools"), Some("gst_all_1.gstreamer"), "lists GStreamer's elements"),
    program("ffmpeg", Need::Run, Some("ffmpeg"), Some("ffmpeg-headless"), "makes clips and decodes recordings"),
    program("ffprobe", Need::Run, Some("ffmpeg"), Some("ffmpeg-headless"), "describes recordings"),
    program("nginx", Need::DefaultServer, Some("nginx"), None, "RTMP half of the default media server"),
    program("mediamtx", Need::MediaMtx, None, Some("mediamtx"), "the reference media server"),
    program("python3", Need::Python, Some("python3"), Some("python3"), "runs an STS service as others write it"),
    program("slurmctld", Need::Fleet, Some("slurmctld"), None, "the scheduler that places streams on nodes"),
    program("slurmd", Need::Fleet, Some("slurmd"), None, "a node of the scheduler"),
    program("sbatch", Need::Fleet, Some("slurm-client"), None, "gives the scheduler a stream"),
    program("munged", Need::Fleet, Some("munge"), None, "the scheduler's nodes know each other by it"),
    program("promtool", Need::Deploy, Some("prometheus"), None, "checks alert rules and metrics"),
    program("chromium", Need::Browser, Some("chromium"), None, "opens the report's pages"),
    // Libraries to compile against.
    library("openssl", "libssl-dev", "openssl", "TLS to the STS service"),
    library("gstreamer-1.0", "libgstreamer1.0-dev", "gst_all_1.gstreamer", "media"),
    library("gstreamer-app-1.0", "libgstreamer-plugins-base1.0-dev", "gst_all_1.gst-plugins-base", "media in and out of our code"),
    library("gstreamer-audio-1.0", "libgstreamer-plugins-base1.0-dev", "gst_all_1.gst-plugins-base", "audio formats"),
    library("gstreamer-sdp-1.0", "libgstreamer-plugins-base1.0-dev", "gst_all_1.gst-plugins-base", "what cameras say of their media"),
    // Elements GStreamer picks inside rtspsrc and decodebin.
    element("rtpbin", "rtpmanager", GOOD, "RTP sessions inside rtspsrc"),
    element("rtpjitterbuffer", "rtpmanager", GOOD, "packet order inside rtspsrc"),
    // Files that programs load.
    Requirement {
        fact: Fact::NginxModule("ngx_rtmp_module.so"),
        need: Need::DefaultServer,
        debian: Some("libnginx-mod-rtmp"),
        nix: None,
        purpose: "RTMP half of the default media server",
    },
    Requirement {
        fact: Fact::GioModule("libgiognutls.so"),
        need: Need::Run,
        debian: Some("glib-networking"),
        nix: Some("glib-networking"),
        purpose: "TLS for rtsps:// and rtmps://",
    },
    Requirement {
        fact: Fact::PythonModule("ensurepip"),
        need: Need::Python,
        debian: Some("python3-venv"),
        nix: Some("python3"),
        purpose: "installs python-socketio into target/python",
    },
];

/// Turns the worker's list of elements into requirements.
macro_rules! elements {
    ($($variant:ident $name:literal $plugin:literal $set:ident $purpose:literal;)*) => {
        const MADE: &[Requirement] = &[$(element($name, $plugin, $set, $purpose)),*];
    };
}

include!("../../worker/media/elements.rs");

/// Where a set of GStreamer plugins comes from.
#[derive(Clone, Copy)]
struct PluginSet {
    debian: &'static str,
    nix: &'static str,
}

const CORE: PluginSet = PluginSet {
    debian: "libgstreamer1.0-0",
    nix: "gst_all_1.gstreamer",
};
const BASE: PluginSet = PluginSet {
    debian: "gstreamer1.0-plugins-base",
    nix: "gst_all_1.gst-plugins-base",
};
const GOOD: PluginSet = PluginSet {
    debian: "gstreamer1.0-plugins-good",
    nix: "gst_all_1.gst-plugins-good",
};
const BAD: PluginSet = PluginSet {
    debian: "gstreamer1.0-plugins-bad",
    nix: "gst_all_1.gst-plugins-bad",
};
const LIBAV: PluginSet = PluginSet {
    debian: "gstreamer1.0-libav",
    nix: "gst_all_1.gst-libav",
};

const fn program(
    name: &'static str,
    need: Need,
    debian: Option<&'static str>,
    nix: Option<&'static str>,
    purpose: &'static str,
) -> Requirement {
    Requirement {
        fact: Fact::Program(name),
        need,
        debian,
        nix,
        purpose,
    }
}

const fn library(
    name: &'static str,
    debian: &'static str,
    nix: &'static str,
    purpose: &'static str,
) -> Requirement {
    Requirement {
        fact: Fact::Library(name),
        need: Need::Build,
        debian: Some(debian),
        nix: Some(nix),
        purpose,
    }
}

const fn element(
    name: &'static str,
    plugin: &'static str,
    set: PluginSet,
    purpose: &'static str,
) -> Requirement {
    Requirement {
        fact: Fact::Element { name, plugin },
        need: Need::Run,
        debian: Some(set.debian),
        nix: Some(set.nix),
        purpose,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nothing_is_listed_twice() {
        let mut seen = BTreeSet::new();
        for requirement in requirements() {
            assert!(
                seen.insert((requirement.kind(), requirement.name())),
                "{} is listed twice",
                requirement.name()
            );
        }
    }

    #[test]
    fn everything_but_mediamtx_has_a_debian_package() {
        for requirement in requirements() {
            assert_eq!(
                requirement.debian.is_none(),
                requirement.need == Need::MediaMtx,
                "{}",
                requirement.name()
            );
        }
    }

    #[test]
    fn only_what_the_flake_does_without_is_unknown_to_nix() {
        let without = [
            Need::DefaultServer,
            Need::Fleet,
            Need::Deploy,
            Need::Browser,
        ];
        for requirement in requirements() {
            assert_eq!(
                requirement.nix.is_none(),
                without.contains(&requirement.need),
                "{}",
                requirement.name()
            );
        }
    }
}
