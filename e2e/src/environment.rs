//! One scenario's world: temporary directory, services, artifacts.
