//! The RTMP half of the default media server: nginx with its rtmp module, unprivileged, in its own
//! directory.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{CONFIGURATION, Ports, app_and_stream, files_in};
use crate::{
    process::Spawn,
    programs,
    services::{Place, http_get},
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

/// What is started, and the address that answers once all of its ports are open.
pub(super) fn start(place: &Place, dir: &Path, [_, http, _]: Ports) -> Result<(Spawn, String)> {
    let spawn = place
        .spawn("nginx", program()?.0)
        // Before the configuration is read, nginx would log to a place of its own.
        .args(["-e", "stderr", "-p"])
        .arg(dir)
        .arg("-c")
        .arg(dir.join(CONFIGURATION));
    Ok((spawn, stat_url(http)))
}

/// Whether somebody publishes the path.
pub(super) fn is_published(http: u16, path: &str) -> Result<bool> {
    let (status, body) = http_get(&stat_url(http))?;
    ensure!(
        status == 200,
        "nginx answers {status} to a question for its status"
    );
    lists_publisher(&body, path)
}

pub(super) fn recordings(dir: &Path, path: &str) -> Result<Vec<PathBuf>> {
    let (app, stream) = app_and_stream(path)?;
    files_in(&record_dir(dir, app), &format!("{stream}-"))
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

/// Makes its directories, for nginx makes none (and its default ones outside unless told), and says
/// what is to be in its configuration.
pub(super) fn config(dir: &Path, rtmp_paths: &[String], [rtmp, http, _]: Ports) -> Result<String> {
    let apps = apps(rtmp_paths)?;
    std::fs::create_dir_all(dir.join("tmp")).context("cannot create nginx's directory")?;
    for app in &apps {
        std::fs::create_dir_all(record_dir(dir, app)).context("cannot create a directory")?;
    }
    let (_, module) = program()?;
    let module = module.map(|module| format!("load_module {};\n", module.display()));
    // Publishers learn every 200 kB that their data arrives, so they notice a server that hangs.
    let mut text = format!(
        "{}daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr notice;\n\
         events {{ worker_connections 256; }}\n\
         rtmp {{\n  server {{\n    listen 127.0.0.1:{rtmp};\n    chunk_size 4096; max_message 16M;\n    \
         ack_window 200000;\n",
        module.unwrap_or_default()
    );
    for app in &apps {
        writeln!(
            text,
            "    application {app} {{\n      live on; wait_key on; wait_video on; idle_streams off;\n      \
             record all; record_unique on; record_suffix .flv; record_path {};\n    }}",
            record_dir(dir, app).display()
        )?;
    }
    text += "  }\n}\nhttp {\n  access_log off;\n";
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(text, "  {kind}_temp_path tmp/{kind};")?;
    }
    writeln!(
        text,
        "  server {{ listen 127.0.0.1:{http}; location /stat {{ rtmp_stat all; }} }}\n}}"
    )?;
    Ok(text)
}

/// Whether nginx's status page lists a publisher of the path.
fn lists_publisher(stat: &str, path: &str) -> Result<bool> {
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
        assert!(lists_publisher(STAT, "live/b/out").unwrap());
        assert!(
            !lists_publisher(STAT, "live/a/out").unwrap(),
            "only a client's mark, not the stream's"
        );
        assert!(!lists_publisher(STAT, "live/b/other").unwrap());
        assert!(!lists_publisher(STAT, "live/c/out").unwrap());
        assert!(lists_publisher("<html>", "live/b/out").is_err());
    }

    #[test]
    fn applications_are_listed_once_and_cannot_break_the_configuration() {
        let paths = ["live/t/out", "live/t/late", "live/u/out"].map(str::to_owned);
        assert_eq!(apps(&paths).unwrap(), ["live/t", "live/u"]);
        assert!(apps(&["a b;/out".to_owned()]).is_err());
    }
}
