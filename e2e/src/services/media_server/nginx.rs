//! The RTMP half of the default media server: nginx with its rtmp module, unprivileged, in its own
//! directory.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{app_and_stream, files_in};
use crate::{
    ports::{Lease, with_leases},
    process::Process,
    programs,
    services::{Place, READY_PATIENCE, STOP_GRACE, http_get},
    wait::{self, Look},
};

/// Path of the rtmp module where it is not in one of [`MODULE_DIRS`].
const MODULE_ENV: &str = "NGINX_RTMP_MODULE";
const MODULE: &str = "ngx_rtmp_module.so";
const MODULE_DIRS: [&str; 4] = [
    "/usr/lib/nginx/modules",
    "/usr/lib64/nginx/modules",
    "/usr/local/lib/nginx/modules",
    "/etc/nginx/modules",
];

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    place: Place,
    process: Process,
    dir: PathBuf,
    leases: [Lease; 2],
}

impl Nginx {
    pub(super) fn start(place: &Place, rtmp_paths: &[String]) -> Result<Self> {
        let dir = place.scratch.join("nginx");
        // nginx creates no directories, and makes its default ones outside unless told.
        std::fs::create_dir_all(dir.join("tmp")).context("cannot create nginx's directory")?;
        let apps = apps(rtmp_paths)?;
        for app in &apps {
            std::fs::create_dir_all(record_dir(&dir, app)).context("cannot create a directory")?;
        }
        let (leases, process) = with_leases(|[rtmp, http]| {
            let config = config(&dir, &apps, rtmp, http)?;
            std::fs::write(dir.join("nginx.conf"), config).context("cannot write nginx.conf")?;
            spawn(place, &dir, http)
        })?;
        Ok(Self {
            place: place.clone(),
            process,
            dir,
            leases,
        })
    }

    pub(super) fn restart(&mut self) -> Result<()> {
        self.process.stop(STOP_GRACE);
        self.process = spawn(&self.place, &self.dir, self.leases[1].port())?;
        Ok(())
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    pub(super) fn rtmp_addr(&self) -> String {
        format!("127.0.0.1:{}", self.leases[0].port())
    }

    pub(super) fn busy_ports(&self) -> Vec<u16> {
        self.leases
            .iter()
            .filter(|lease| !lease.is_free())
            .map(Lease::port)
            .collect()
    }

    pub(super) fn is_published(&self, path: &str) -> Result<bool> {
        let (status, body) = http_get(&stat_url(self.leases[1].port()))?;
        if status != 200 {
            bail!("nginx answers {status} to a question for its status");
        }
        is_published(&body, path)
    }

    pub(super) fn recordings(&self, path: &str) -> Result<Vec<PathBuf>> {
        let (app, stream) = app_and_stream(path)?;
        files_in(&record_dir(&self.dir, app), &format!("{stream}-"))
    }
}

/// nginx and, if it is not built in, its rtmp module.
pub(super) fn program() -> Result<(PathBuf, Option<PathBuf>)> {
    let nginx = programs::tool("nginx")?;
    if let Some(module) = std::env::var_os(MODULE_ENV) {
        return Ok((nginx, Some(module.into())));
    }
    let module = MODULE_DIRS
        .iter()
        .map(|dir| Path::new(dir).join(MODULE))
        .find(|path| path.is_file());
    if module.is_some() {
        return Ok((nginx, module));
    }
    let about = std::process::Command::new(&nginx)
        .arg("-V")
        .output()
        .context("cannot run nginx")?;
    // A module built in is an `--add-module`, one to load an `--add-dynamic-module`.
    let built_in = String::from_utf8_lossy(&about.stderr)
        .split_whitespace()
        .any(|word| word.starts_with("--add-module=") && word.contains("rtmp"));
    if built_in {
        return Ok((nginx, None));
    }
    bail!(
        "nginx has no rtmp module: `apt-get install --no-install-recommends libnginx-mod-rtmp`, or set \
         {MODULE_ENV} to the path of {MODULE}"
    )
}

fn spawn(place: &Place, dir: &Path, http: u16) -> Result<Process> {
    let (nginx, _) = program()?;
    let spawn = place
        .spawn("nginx", nginx)
        // Before the configuration is read, nginx would log to a place of its own.
        .args(["-e", "stderr", "-p"])
        .arg(dir)
        .arg("-c")
        .arg(dir.join("nginx.conf"));
    let process = place.group.spawn(&spawn)?;
    let url = stat_url(http);
    let ready = wait::until("nginx to answer", READY_PATIENCE, || {
        process.alive()?;
        Ok(match http_get(&url) {
            Ok((200, _)) => Look::Done(()),
            Ok((status, _)) => Look::NotYet(format!("status {status}")),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    });
    if let Err(error) = ready {
        process.kill();
        return Err(error);
    }
    Ok(process)
}

/// The applications of the paths, each once.
fn apps(rtmp_paths: &[String]) -> Result<Vec<String>> {
    let mut apps = Vec::new();
    for path in rtmp_paths {
        let (app, _) = app_and_stream(path)?;
        if !app
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-/.".contains(c))
        {
            bail!("RTMP application {app:?} cannot be written into nginx's configuration");
        }
        apps.push(app.to_owned());
    }
    apps.sort();
    apps.dedup();
    Ok(apps)
}

fn record_dir(dir: &Path, app: &str) -> PathBuf {
    dir.join("recordings").join(app.replace('/', "_"))
}

fn stat_url(http: u16) -> String {
    format!("http://127.0.0.1:{http}/stat")
}

fn config(dir: &Path, apps: &[String], rtmp: u16, http: u16) -> Result<String> {
    let (_, module) = program()?;
    let mut text = String::new();
    if let Some(module) = module {
        writeln!(text, "load_module {};", module.display())?;
    }
    writeln!(
        text,
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr notice;"
    )?;
    writeln!(text, "events {{ worker_connections 256; }}")?;
    writeln!(
        text,
        "rtmp {{\n  server {{\n    listen 127.0.0.1:{rtmp};\n    chunk_size 4096; max_message 16M;"
    )?;
    // Publishers learn every 200 kB that their data arrives, so they notice a server that hangs.
    writeln!(text, "    ack_window 200000;")?;
    for app in apps {
        writeln!(text, "    application {app} {{")?;
        writeln!(
            text,
            "      live on; wait_key on; wait_video on; idle_streams off;"
        )?;
        writeln!(
            text,
            "      record all; record_unique on; record_suffix .flv; record_path {};",
            record_dir(dir, app).display()
        )?;
        writeln!(text, "    }}")?;
    }
    writeln!(text, "  }}\n}}")?;
    writeln!(text, "http {{\n  access_log off;")?;
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(text, "  {kind}_temp_path tmp/{kind};")?;
    }
    writeln!(
        text,
        "  server {{ listen 127.0.0.1:{http}; location /stat {{ rtmp_stat all; }} }}"
    )?;
    writeln!(text, "}}")?;
    Ok(text)
}

/// Whether nginx's status page lists a publisher of the path.
fn is_published(stat: &str, path: &str) -> Result<bool> {
    let (app, stream) = app_and_stream(path)?;
    let page = roxmltree::Document::parse(stat).context("nginx's status is not XML")?;
    let named = |node: &roxmltree::Node<'_, '_>, tag: &str, name: &str| {
        node.has_tag_name(tag)
            && node
                .children()
                .any(|child| child.has_tag_name("name") && child.text() == Some(name))
    };
    Ok(page
        .descendants()
        .filter(|node| named(node, "application", app))
        .flat_map(|node| node.descendants())
        .filter(|node| named(node, "stream", stream))
        .any(|node| {
            node.children()
                .any(|child| child.has_tag_name("publishing"))
        }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "<?xml version=\"1.0\" encoding=\"utf-8\" ?>\n<rtmp><server>\
        <application><name>live/a</name><live><stream><name>out</name><client><publishing/></client>\
        <nclients>1</nclients></stream></live></application>\
        <application><name>live/b</name><live><stream><name>out</name><nclients>2</nclients><publishing/>\
        <active/></stream></live></application></server></rtmp>";

    #[test]
    fn a_publisher_is_found_under_its_application() {
        assert!(is_published(STAT, "live/b/out").unwrap());
        assert!(
            !is_published(STAT, "live/a/out").unwrap(),
            "only a client's mark, not the stream's"
        );
        assert!(!is_published(STAT, "live/b/other").unwrap());
        assert!(!is_published(STAT, "live/c/out").unwrap());
        assert!(is_published("<html>", "live/b/out").is_err());
    }

    #[test]
    fn applications_are_listed_once_and_cannot_break_the_configuration() {
        let paths = ["live/t/out", "live/t/late", "live/u/out"].map(str::to_owned);
        assert_eq!(apps(&paths).unwrap(), ["live/t", "live/u"]);
        assert!(apps(&["a b;/out".to_owned()]).is_err());
    }
}
