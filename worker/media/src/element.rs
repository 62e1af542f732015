//! The GStreamer elements the worker makes, as a type.

use gst::prelude::*;

use crate::MediaError;

/// Turns the list into the type; the other columns are for `xtask`.
macro_rules! elements {
    ($($variant:ident $name:literal $plugin:literal $set:ident $purpose:literal;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Element {
            $($variant),*
        }

        impl Element {
            fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),*
                }
            }
        }

        const NAMES: &[&str] = &[$($name),*];
    };
}

include!("../elements.rs");

/// Which of the elements are not installed.
pub(crate) fn missing() -> Vec<String> {
    let absent = |name: &&&str| gst::ElementFactory::find(name).is_none();
    NAMES
        .iter()
        .filter(absent)
        .map(|&name| name.to_owned())
        .collect()
}

/// Makes an element; the failure names it, because a missing plugin is the usual cause.
pub(crate) fn make(element: Element) -> Result<gst::Element, MediaError> {
    let made = gst::ElementFactory::make(element.name()).build();
    made.map_err(|_| MediaError::MissingElements(vec![element.name().to_owned()]))
}

/// An element as the type that its factory makes, such as `AppSrc`.
pub(crate) fn cast<T: IsA<gst::Element>>(element: gst::Element) -> Result<T, MediaError> {
    element.downcast().map_err(|element| {
        let name = element.factory().map(|factory| factory.name().to_string());
        MediaError::MissingElements(vec![name.unwrap_or_default()])
    })
}
