//! Two parsers of calendar objects that are not ours: PyPI's icalendar and vobject, run by `check.py`.

use std::fs;

use serde_json::Value;

use crate::python;

/// A calendar object and what a reader should understand; `check.py` says in which form.
pub struct Sample {
    pub ics: String,
    pub meant: Value,
}

/// Fails unless both parsers understand each sample as it was meant; where they are not there, see
/// [`python::assert_agrees`].
pub fn assert_read_as_meant(samples: &[Sample]) {
    let needed = "PyPI's packages icalendar and vobject";
    python::assert_agrees("check.py", "import icalendar, vobject", needed, |folder| {
        let mut expected = serde_json::Map::new();
        let mut files = vec![folder.join("expected.json")];
        for (number, sample) in samples.iter().enumerate() {
            let name = format!("{number}.ics");
            files.push(folder.join(&name));
            fs::write(&files[number + 1], &sample.ics).expect("a file");
            expected.insert(name, sample.meant.clone());
        }
        fs::write(&files[0], Value::from(expected).to_string()).expect("a file");
        files
    });
}
