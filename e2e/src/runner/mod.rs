//! Runs scenarios side by side and shows how far they are.
