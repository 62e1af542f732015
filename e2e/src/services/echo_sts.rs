//! The `echo-sts` process of one environment.
