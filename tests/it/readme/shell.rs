//! As much of Markdown and of a shell's grammar as README.md uses.

use std::iter::Peekable;
use std::str::Chars;

/// One command line.
#[derive(Debug, Default)]
pub struct Line {
    pub text: String,
    pub words: Vec<String>,
    /// File that standard input comes from.
    pub input: Option<String>,
    /// File that standard output goes to.
    pub output: Option<String>,
    pub comment: String,
}

/// The command lines in the fenced blocks of bash.
pub fn bash_lines(markdown: &str) -> Vec<Line> {
    let blocks = markdown.split("\n```bash\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("\n```").next());
    let lines = blocks.flat_map(str::lines).map(line);
    lines.filter(|line| !line.words.is_empty()).collect()
}

/// What stands between single backticks, outside of fenced blocks.
pub fn inline_code(markdown: &str) -> Vec<&str> {
    let prose = markdown.split("```").step_by(2);
    prose.flat_map(|text| text.split('`').skip(1).step_by(2)).collect()
}

pub fn line(text: &str) -> Line {
    let mut line = Line {
        text: text.to_owned(),
        ..Line::default()
    };
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        match letters.peek() {
            None => return line,
            Some('#') => {
                line.comment = letters.skip(1).collect::<String>().trim().to_owned();
                return line;
            }
            Some('<') => line.input = file(&mut letters),
            Some('>') => line.output = file(&mut letters),
            Some(_) => line.words.push(word(&mut letters)),
        }
    }
}

fn file(letters: &mut Peekable<Chars>) -> Option<String> {
    letters.next();
    while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
    Some(word(letters))
}

fn word(letters: &mut Peekable<Chars>) -> String {
    let mut word = String::new();
    let mut quote = None;
    while let Some(letter) = letters.next_if(|letter| quote.is_some() || !letter.is_whitespace()) {
        match quote {
            Some(open) if open == letter => quote = None,
            None if letter == '"' || letter == '\'' => quote = Some(letter),
            _ => word.push(letter),
        }
    }
    assert_eq!(quote, None, "a quote does not end: {word}");
    word
}
