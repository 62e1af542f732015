mod audio;
mod session;
mod simulation;
mod tally;
