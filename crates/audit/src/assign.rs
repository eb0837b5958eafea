//! Which line of a table each descriptor belongs to. A descriptor may fit several lines, so the assignment is a matching: generous in
//! what goes where, exact in how many there are in all.

/// For each thing, the line that it got. `fits` lists the lines for each thing, `most` how many each line takes.
///
/// Augmenting paths (Kuhn's algorithm): a thing that finds its lines full may move another to a line where there is room.
pub fn assign(fits: &[Vec<usize>], most: &[usize]) -> Vec<Option<usize>> {
    let mut taken: Vec<Vec<usize>> = vec![Vec::new(); most.len()];
    for thing in 0..fits.len() {
        place(thing, fits, most, &mut taken, &mut vec![false; most.len()]);
    }
    let mut lines = vec![None; fits.len()];
    for (line, things) in taken.iter().enumerate() {
        for thing in things {
            if let Some(slot) = lines.get_mut(*thing) {
                *slot = Some(line);
            }
        }
    }
    lines
}

fn place(thing: usize, fits: &[Vec<usize>], most: &[usize], taken: &mut [Vec<usize>], seen: &mut [bool]) -> bool {
    let Some(lines) = fits.get(thing) else { return false };
    // First where there is room, so that nothing moves without need.
    for line in lines {
        if let (Some(here), Some(limit)) = (taken.get_mut(*line), most.get(*line))
            && here.len() < *limit
        {
            here.push(thing);
            return true;
        }
    }
    for line in lines {
        match seen.get_mut(*line) {
            Some(seen) if !*seen => *seen = true,
            _ => continue,
        }
        for other in taken.get(*line).cloned().unwrap_or_default() {
            if place(other, fits, most, taken, seen)
                && let Some(here) = taken.get_mut(*line)
            {
                here.retain(|t| *t != other);
                here.push(thing);
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::assign;

    #[test]
    fn a_thing_moves_to_make_room_for_another() {
        // 0 fits both lines and takes the first; 1 fits the first only.
        assert_eq!(assign(&[vec![0, 1], vec![0]], &[1, 1]), [Some(1), Some(0)]);
    }

    #[test]
    fn one_too_many_gets_no_line() {
        let lines = assign(&[vec![0], vec![0], vec![0]], &[2]);
        assert_eq!(lines.iter().filter(|l| l.is_none()).count(), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_line_gets_more_than_it_takes(fits in proptest::collection::vec(proptest::collection::vec(0usize..5, 0..5), 0..30),
            most in proptest::collection::vec(0usize..4, 5)) {
            let lines = assign(&fits, &most);
            for (line, limit) in most.iter().enumerate() {
                assert!(lines.iter().filter(|l| **l == Some(line)).count() <= *limit);
            }
            for (got, fits) in lines.iter().zip(&fits) {
                assert!(got.is_none_or(|line| fits.contains(&line)));
            }
        }
    }
}
