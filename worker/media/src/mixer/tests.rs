use super::*;

#[test]
fn a_thread_that_is_behind_for_a_minute_is_given_up_whatever_it_takes_meanwhile() {
    let (tasks, queue) = mpsc::sync_channel(1);
    let mut mixer = Mixer {
        tasks,
        waiting: VecDeque::new(),
        waiting_since: None,
    };
    for _ in 0..3 {
        mixer.finish().unwrap();
    }
    // It takes one, and two still wait.
    queue.recv().unwrap();
    mixer.waiting_since = Instant::now().checked_sub(2 * LONGEST_WAIT);
    assert!(mixer.go_on().is_err());
    queue.recv().unwrap();
    mixer.go_on().unwrap();
    assert_eq!(mixer.waiting_since, None, "nothing waits");
    drop(queue);
    assert!(mixer.finish().is_err(), "nobody is there");
}
