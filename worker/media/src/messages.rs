//! What GLib and GStreamer would print by themselves, handed to a log of ours.

use std::sync::{Arc, Once};

use gst::glib;

/// How loud a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// A library's own complaint.
    Warning,
    /// Anything else.
    Detail,
}

/// Hands every message of the libraries to `tell` (severity, source, text) instead of writing it
/// raw to stderr. May be called from any thread. Only the first call has an effect.
pub fn capture(tell: impl Fn(Severity, &str, &str) + Send + Sync + 'static) {
    static ONCE: Once = Once::new();
    let tell = Arc::new(tell);
    ONCE.call_once(move || {
        let log = Arc::clone(&tell);
        glib::log_set_writer_func(move |level, fields| {
            let field = |name| fields.iter().find(|field| field.key() == name);
            let text = |name| field(name).and_then(glib::LogField::value_str);
            let severity = match level {
                glib::LogLevel::Error | glib::LogLevel::Critical | glib::LogLevel::Warning => {
                    Severity::Warning
                }
                _ => Severity::Detail,
            };
            let domain = text("GLIB_DOMAIN").unwrap_or("GLib");
            log(severity, domain, text("MESSAGE").unwrap_or_default().trim());
            glib::LogWriterOutput::Handled
        });
        let print = Arc::clone(&tell);
        glib::set_print_handler(move |text| print(Severity::Detail, "stdout", text.trim()));
        glib::set_printerr_handler(move |text| tell(Severity::Detail, "stderr", text.trim()));
    });
}

/// Hands GStreamer's own debug output (`GST_DEBUG`) to `tell`. Before [`init`](crate::init), which has
/// something to say already.
pub fn capture_debug(tell: impl Fn(&str, &str) + Send + Sync + 'static) {
    gst::log::remove_default_log_function();
    gst::log::add_log_function(move |category, level, _, _, _, object, message| {
        if level <= category.threshold() {
            let object = object
                .map(|object| format!("{object}: "))
                .unwrap_or_default();
            let text = message.get().unwrap_or_default();
            tell(category.name(), &format!("{object}{text}"));
        }
    });
}
