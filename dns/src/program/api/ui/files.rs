//! The files of the page. Written by `scripts/build-ui`; change `dns/ui` instead.

use super::File;

/// All of them, by name.
pub(super) const FILES: [File; 6] = [
    File {
        name: "icon-3d35f8c7bb.svg",
        kind: "image/svg+xml",
        plain: include_bytes!("icon-3d35f8c7bb.svg"),
        brotli: include_bytes!("icon-3d35f8c7bb.svg.br"),
        gzip: include_bytes!("icon-3d35f8c7bb.svg.gz"),
    },
    File {
        name: "index.html",
        kind: "text/html; charset=utf-8",
        plain: include_bytes!("index.html"),
        brotli: include_bytes!("index.html.br"),
        gzip: include_bytes!("index.html.gz"),
    },
    File {
        name: "notices-7eebeb95e9.txt",
        kind: "text/plain; charset=utf-8",
        plain: include_bytes!("notices-7eebeb95e9.txt"),
        brotli: include_bytes!("notices-7eebeb95e9.txt.br"),
        gzip: include_bytes!("notices-7eebeb95e9.txt.gz"),
    },
    File {
        name: "page-bd64d1d9a8.js",
        kind: "text/javascript; charset=utf-8",
        plain: include_bytes!("page-bd64d1d9a8.js"),
        brotli: include_bytes!("page-bd64d1d9a8.js.br"),
        gzip: include_bytes!("page-bd64d1d9a8.js.gz"),
    },
    File {
        name: "page-bf0fd30611.css",
        kind: "text/css; charset=utf-8",
        plain: include_bytes!("page-bf0fd30611.css"),
        brotli: include_bytes!("page-bf0fd30611.css.br"),
        gzip: include_bytes!("page-bf0fd30611.css.gz"),
    },
    File {
        name: "world-189afffc93.json",
        kind: "application/json",
        plain: include_bytes!("world-189afffc93.json"),
        brotli: include_bytes!("world-189afffc93.json.br"),
        gzip: include_bytes!("world-189afffc93.json.gz"),
    },
];
