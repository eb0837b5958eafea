//! `skep template`.

use clap::Subcommand;

/// Templates: where images come from, and what their machines need. TOML files in SKEP_TEMPLATES, or in ~/.config/skep/templates, beside
/// skep.conf, and in share/skep/templates.
#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// List them
    #[command(visible_alias = "ls")]
    List,
    /// Show one
    Show {
        /// Its name
        template: String,
    },
}
