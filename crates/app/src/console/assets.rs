//! Stylesheet, script and icon, in the binary. Their address holds a digest of what they are, so that a
//! browser may keep them for ever and never shows a page with those of another version.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

/// One embedded file.
#[derive(Debug)]
pub(super) struct Asset {
    ending: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

const STYLE: Asset = Asset {
    ending: "css",
    media_type: "text/css; charset=utf-8",
    bytes: include_bytes!("assets/console.css"),
};
const SCRIPT: Asset = Asset {
    ending: "js",
    media_type: "text/javascript; charset=utf-8",
    bytes: include_bytes!("assets/console.js"),
};
const ICON: Asset = Asset {
    ending: "svg",
    media_type: "image/svg+xml",
    bytes: include_bytes!("assets/icon.svg"),
};

/// Digits of the digest in an address: enough to tell versions apart.
const DIGEST_BYTES: usize = 8;

static ADDRESSES: LazyLock<[String; 3]> =
    LazyLock::new(|| [&STYLE, &SCRIPT, &ICON].map(|asset| format!("/assets/{}", asset.name())));

pub(super) fn style() -> &'static str {
    &ADDRESSES[0]
}

pub(super) fn script() -> &'static str {
    &ADDRESSES[1]
}

pub(super) fn icon() -> &'static str {
    &ADDRESSES[2]
}

impl Asset {
    fn name(&self) -> String {
        let digest = Sha256::digest(self.bytes);
        let digits: String = digest
            .iter()
            .take(DIGEST_BYTES)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("console-{digits}.{}", self.ending)
    }
}

/// `GET /assets/{name}`, for anybody: nothing of the site is in them.
pub(super) async fn serve(Path(name): Path<String>) -> Response {
    let address = format!("/assets/{name}");
    let found = [&STYLE, &SCRIPT, &ICON]
        .into_iter()
        .zip(ADDRESSES.iter())
        .find(|(_, own)| **own == address);
    match found {
        None => StatusCode::NOT_FOUND.into_response(),
        Some((asset, _)) => (
            [
                (
                    header::CONTENT_TYPE,
                    HeaderValue::from_static(asset.media_type),
                ),
                (
                    header::CACHE_CONTROL,
                    HeaderValue::from_static("public, max-age=31536000, immutable"),
                ),
            ],
            asset.bytes,
        )
            .into_response(),
    }
}
