mod audio;
mod simulation;
