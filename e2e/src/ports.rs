//! Free ports for programs that cannot bind port 0 themselves.
