//! What the pages of one server have in common: finding it, its heading and its tabs.

use super::{HERE, path_of};
use crate::http::admin::servers::view::ServerView;
use crate::http::admin::servers::{self, Asker};
use crate::http::console::Answer;
use crate::http::console::layout::Section;
use crate::http::console::parts::{Tone, chip};
use crate::http::console::session::Visit;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use maud::{Markup, html};
use std::sync::Arc;

/// The pages of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Overview,
    Tools,
    Offers,
    Settings,
    People,
    Connect,
}

impl Tab {
    const ALL: &[Self] = &[
        Self::Overview,
        Self::Tools,
        Self::Offers,
        Self::Settings,
        Self::People,
        Self::Connect,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Tools => "MCP Tools",
            Self::Offers => "Prompts and resources",
            Self::Settings => "Settings",
            Self::People => "Who is connected",
            Self::Connect => "Connect a client",
        }
    }

    /// Behind the server's own path.
    fn path(self) -> &'static str {
        match self {
            Self::Overview => "",
            Self::Tools => "/tools",
            Self::Offers => "/prompts",
            Self::Settings => "/settings",
            Self::People => "/people",
            Self::Connect => "/connect",
        }
    }
}

/// A server before somebody.
pub(super) struct Opened {
    pub(super) visit: Visit,
    pub(super) view: ServerView,
    /// As it is served; `None` for one that cannot be.
    pub(super) server: Option<Arc<Server>>,
}

pub(super) fn asker(visit: &Visit) -> Asker<'_> {
    Asker {
        admission: &visit.admission,
        headers: &visit.parts.headers,
        peer: visit.peer(),
    }
}

impl Opened {
    /// The server `id`, as this visit may see it; else the page that says why not.
    pub(super) async fn of(visit: Visit, id: &str) -> Result<Self, Answer> {
        match Self::found(&visit, id).await {
            Ok((view, server)) => Ok(Self { visit, view, server }),
            Err(refusal) => Err(visit.refusal(refusal)),
        }
    }

    async fn found(visit: &Visit, id: &str) -> Result<(ServerView, Option<Arc<Server>>), Refusal> {
        let worker = &visit.worker;
        let (view, server) = servers::find(worker, asker(visit), id).await?;
        // Connections belong to the configuration that the request began with.
        let current = server.and_then(|server| worker.app.registry.by_id(&server.id).cloned());
        Ok((view, current))
    }

    /// The server as it is served.
    pub(super) fn served(&self) -> Result<&Arc<Server>, Refusal> {
        let why = "The server cannot be used as it is configured; its overview says why.";
        self.server
            .as_ref()
            .ok_or_else(|| Refusal::because(ErrorCode::NoPage, why))
    }

    pub(super) fn path(&self) -> String {
        path_of(&self.view.id)
    }

    /// The path of one of its pages.
    pub(super) fn path_to(&self, tab: Tab) -> String {
        format!("{}{}", self.path(), tab.path())
    }

    fn has(&self, tab: Tab) -> bool {
        match tab {
            Tab::Overview => true,
            Tab::Settings => self.visit.is_admin(),
            Tab::People => {
                let signs_in = |server: &Arc<Server>| server.sign_in().is_some();
                self.visit.is_admin() && self.server.as_ref().is_some_and(signs_in)
            }
            Tab::Tools | Tab::Offers | Tab::Connect => self.server.is_some(),
        }
    }

    /// One of its pages.
    pub(super) fn show(&self, here: Tab, content: &Markup) -> Answer {
        let whole = html! {
            div.head {
                div {
                    p.quiet { a href=(HERE) { "Servers" } }
                    h1 { (self.view.name) }
                }
                div.row {
                    @if self.server.is_none() { (chip(Tone::Bad, "cannot be used")) }
                }
            }
            nav.tabs aria-label="Server" {
                ul {
                    @for tab in Tab::ALL.iter().copied().filter(|tab| self.has(*tab)) {
                        li {
                            a href=(self.path_to(tab)) aria-current=[(tab == here).then_some("page")] { (tab.title()) }
                        }
                    }
                }
            }
            (content)
        };
        let title = format!("{} · {}", here.title(), self.view.name);
        self.visit.page(Section::Servers, &title, &whole)
    }

    /// One of its pages, or why there is none.
    pub(super) fn show_or(&self, here: Tab, content: Result<Markup, Refusal>) -> Answer {
        match content {
            Ok(content) => self.show(here, &content),
            Err(refusal) => self.visit.refusal(refusal),
        }
    }
}
