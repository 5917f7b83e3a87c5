//! A list that fails, with all left out that it does not need to fail.

/// How often a shorter list is tried: enough for some hundred steps, and over in seconds.
const TRIES_MAX: usize = 1500;

/// Leaves out whatever `fails` does not need, in ever smaller pieces.
pub fn shrunk<T: Clone>(list: &[T], fails: impl Fn(&[T]) -> bool) -> Vec<T> {
    let mut list = list.to_vec();
    let mut piece = list.len().div_ceil(2).max(1);
    let mut tries = 0;
    loop {
        let (mut start, mut has_shrunk) = (0, false);
        while start < list.len() && tries < TRIES_MAX {
            let end = list.len().min(start + piece);
            let fewer = [&list[..start], &list[end..]].concat();
            tries += 1;
            if fails(&fewer) {
                (list, has_shrunk) = (fewer, true);
            } else {
                start = end;
            }
        }
        if tries >= TRIES_MAX || (piece == 1 && !has_shrunk) {
            return list;
        }
        piece = piece.div_ceil(2);
    }
}

/// Tests of the tests: what is needed stays, and nothing else.
#[test]
fn only_what_is_needed_stays() {
    let list: Vec<u32> = (0..300).collect();
    let needed = [7, 8, 250];
    let fails = |list: &[u32]| needed.iter().all(|number| list.contains(number));
    assert_eq!(shrunk(&list, fails), needed);
}
