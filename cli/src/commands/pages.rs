//! Lists come in pages; commands want all of them.

/// Collects all pages of a list: `pages!(api.list, disks, ListDisksRequest { iso: None })`.
macro_rules! pages {
    ($api:ident.$method:ident, $field:ident, $request:ident { $($more:ident: $value:expr),* }) => {{
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let page = $api.$method($request { page_size: 0, page_token, $($more: $value),* }).await?.into_inner();
            all.extend(page.$field);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break all;
            }
        }
    }};
}
pub(super) use pages;
