//! A parser for the Markdown that this project's documentation uses.

use std::{
    fs,
    path::{Path, PathBuf},
};

pub(super) struct Page {
    /// Relative to the root of the package.
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) blocks: Vec<Block>,
    /// The texts between backticks outside blocks.
    pub(super) inline_code: Vec<String>,
    /// The targets of links, outside blocks.
    pub(super) links: Vec<String>,
    /// The anchors of headings.
    pub(super) anchors: Vec<String>,
}

/// A fenced block of code.
pub(super) struct Block {
    pub(super) language: String,
    pub(super) text: String,
}

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All pages: those of the root and those below `docs`.
pub(super) fn pages() -> Vec<Page> {
    let mut paths = Vec::new();
    let mut unread = vec![PathBuf::from("docs")];
    while let Some(folder) = unread.pop() {
        for path in entries(&folder) {
            if root().join(&path).is_dir() { unread.push(path) } else { paths.push(path) }
        }
    }
    paths.extend(entries(Path::new("")));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths.iter().map(page).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("the folder is there");
    entries.map(|entry| folder.join(entry.expect("readable").file_name())).collect()
}

pub(super) fn page(path: impl AsRef<Path>) -> Page {
    let path = path.as_ref().to_owned();
    let text = fs::read_to_string(root().join(&path))
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let (mut blocks, mut prose) = (Vec::new(), String::new());
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (open.as_mut(), line.trim_start().strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text = format!("{}{line}\n", block.text),
            (None, Some(language)) => {
                open = Some(Block { language: language.to_owned(), text: String::new() });
            }
            (None, None) => prose = format!("{prose}{line}\n"),
        }
    }
    assert!(open.is_none(), "{}: a block of code does not end", path.display());
    let anchors = prose.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
    let inline_code = prose.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " ")).collect();
    let links = prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()));
    let links = links.collect();
    Page { path, text, blocks, inline_code, links, anchors }
}

/// The anchor of a heading: lower case, hyphens for spaces, nothing else.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>()
        .replace(' ', "-")
}

/// The cells of every row of the table with this header.
pub(super) fn table(page: &Page, head: &str) -> Vec<Vec<String>> {
    let (_, rows) = page.text.split_once(head).unwrap_or_else(|| panic!("there is no table `{head}`"));
    let rows = rows.trim_start_matches('\n').lines().skip(1).take_while(|line| line.starts_with('|'));
    // A `\|` is part of a cell.
    rows.map(|row| {
        let row = row.replace("\\|", "\u{1}");
        row.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
    })
    .collect()
}

/// The texts between backticks in a cell.
pub(super) fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
