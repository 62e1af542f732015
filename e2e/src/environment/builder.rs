//! Starts an environment's services.

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::{Result, ensure};

use super::{Environment, Scene, SharedTrace, Way, output_path, unix_ms};
use crate::{
    artifacts::Artifacts,
    cleanup::Run,
    failure,
    process::Group,
    report::{Part, tools},
    services::{
        Place, READY_PATIENCE,
        camera::Camera,
        echo_sts::{EchoSts, EchoStsOptions},
        media_server::{Kind, MediaServer, RtspSettings},
        python_sts::{self, PythonStsOptions},
        tcp_proxy::TcpProxy,
    },
    streams,
    wait::{self, Look},
};

/// What an environment consists of.
#[derive(Debug)]
pub struct Builder {
    name: String,
    stream_id: String,
    media_server: Option<Kind>,
    scene: Option<Scene>,
    rtsp: RtspSettings,
    also: Vec<String>,
    echo_sts: Option<EchoStsOptions>,
    python_sts: Option<PythonStsOptions>,
    tcp_proxy: bool,
    trace: SharedTrace,
}

impl Builder {
    /// Uses this media server; unset: the one that [`Kind::choose`] finds.
    #[must_use]
    pub fn media_server(mut self, kind: Kind) -> Self {
        self.media_server = Some(kind);
        self
    }

    /// What the worker reads; without it there is nothing at its input.
    #[must_use]
    pub fn scene(mut self, scene: Scene) -> Self {
        self.scene = Some(scene);
        self
    }

    /// What MediaMTX does on its RTSP side where there is no scene.
    #[must_use]
    pub fn rtsp(mut self, settings: RtspSettings) -> Self {
        self.rtsp = settings;
        self
    }

    /// The media server records these streams too.
    #[must_use]
    pub fn also(mut self, stream_ids: &[&str]) -> Self {
        self.also = stream_ids.iter().map(|id| (*id).to_owned()).collect();
        self
    }

    /// Names the stream; unset: `test`.
    #[must_use]
    pub fn stream_id(mut self, stream_id: impl Into<String>) -> Self {
        self.stream_id = stream_id.into();
        self
    }

    /// Starts `echo-sts` with these options; without it there is none.
    #[must_use]
    pub fn echo_sts(mut self, options: EchoStsOptions) -> Self {
        self.echo_sts = Some(options);
        self
    }

    /// Starts an STS service written in Python instead of `echo-sts`.
    #[must_use]
    pub fn python_sts(mut self, options: PythonStsOptions) -> Self {
        self.echo_sts = None;
        self.python_sts = Some(options);
        self
    }

    /// Puts a TCP proxy between worker and `echo-sts` that can cut their connections.
    #[must_use]
    pub fn tcp_proxy(mut self) -> Self {
        self.tcp_proxy = true;
        self
    }

    /// Remembers in `trace` what is worth knowing when the environment is gone.
    #[must_use]
    pub fn trace(mut self, trace: SharedTrace) -> Self {
        self.trace = trace;
        self
    }

    /// Waits for its turn, makes the directories and starts the services; returns when all are ready.
    ///
    /// # Errors
    /// When one cannot be started; those already started are stopped again.
    pub fn start(self) -> Result<Environment> {
        let turn = streams::take();
        let artifacts = Artifacts::claim(&self.name)?;
        let scratch = Run::current()?.scratch(&self.name)?;
        let group = Group::marked(scratch.path())?;
        let place = Place {
            group: Arc::clone(&group),
            scratch: scratch.path().to_owned(),
            artifacts: artifacts.dir().to_owned(),
        };
        let mut environment = Environment {
            name: self.name,
            stream_id: self.stream_id,
            started: Instant::now(),
            place,
            media_server: None,
            camera: None,
            through_server: false,
            echo_sts: None,
            python_sts: None,
            tcp_proxy: None,
            trace: self.trace,
            part: Part {
                part: failure::part(),
                began_ms: unix_ms(Instant::now()),
                tools: tools().to_vec(),
                ..Part::default()
            },
            finished: false,
            artifacts,
            scratch: Some(scratch),
            _turn: turn,
        };
        let kind = self.media_server.map_or_else(|| Kind::choose(None), Ok)?;
        environment.part.media_server = kind.to_string();
        let ids = self.also.iter().chain([&environment.stream_id]);
        let rtmp_paths: Vec<_> = ids.map(|id| output_path(id)).collect();
        // From here on a failure drops the environment, which stops what was started.
        let settings = self.scene.as_ref().map_or_else(
            || Ok(self.rtsp.clone()),
            |scene| environment.show(scene, kind),
        )?;
        let server = MediaServer::start(kind, &environment.place, &rtmp_paths, &settings)?;
        environment.media_server = Some(server);
        if let Some(scene) = self
            .scene
            .filter(|scene| matches!(scene.way, Way::Published { .. }))
        {
            environment.publish(&scene.clip)?;
        }
        if let Some(options) = self.echo_sts {
            let echo_sts = environment
                .echo_sts
                .insert(EchoSts::start(&environment.place, options)?);
            if self.tcp_proxy {
                environment.tcp_proxy = Some(TcpProxy::start(echo_sts.address()?)?);
            }
        }
        if let Some(options) = self.python_sts {
            environment.python_sts = Some(python_sts::start(&environment.place, &options)?);
        }
        Ok(environment)
    }
}

impl Environment {
    /// An environment whose artifacts go to `target/e2e/<name>/`.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder {
            name: name.into(),
            stream_id: "test".into(),
            media_server: None,
            scene: None,
            rtsp: RtspSettings::default(),
            also: Vec::new(),
            echo_sts: None,
            python_sts: None,
            tcp_proxy: false,
            trace: SharedTrace::default(),
        }
    }

    /// Switches the camera on, and says what the media server is to do about it.
    fn show(&mut self, scene: &Scene, kind: Kind) -> Result<RtspSettings> {
        let mut settings = RtspSettings::default();
        self.through_server = match scene.way {
            Way::Usual => kind == Kind::MediaMtx,
            Way::Camera => false,
            Way::Published {
                absolute_timestamps,
            } => {
                ensure!(
                    kind == Kind::MediaMtx,
                    "ffmpeg can only publish to MediaMTX"
                );
                settings.absolute_timestamps = absolute_timestamps;
                self.through_server = true;
                return Ok(settings);
            }
        };
        let mut manner = scene.manner.clone();
        manner.session.hold = self.through_server;
        let camera = Camera::start(&self.place, "camera", &scene.clip, &manner, None)?;
        if self.through_server {
            let path = self.input_path();
            let from = format!("rtsp://{}/{path}", camera.address());
            settings.pull = Some((path, from));
        }
        self.camera = Some(camera);
        Ok(settings)
    }

    /// Lets ffmpeg publish a clip to the media server, in real time.
    fn publish(&self, clip: &Path) -> Result<()> {
        let path = self.input_path();
        let call = e2e_ffmpeg::publish(clip, None, &self.media_server().rtsp_url(&path)?);
        let publisher = self
            .place
            .group
            .spawn(&self.place.call("publisher", &call))?;
        wait::until("the input to be published", READY_PATIENCE, || {
            publisher.alive()?;
            let published = self.media_server().readers(&path)?.is_some();
            Ok(Look::when(published, "nothing"))
        })
    }
}
