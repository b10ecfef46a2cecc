//! One server, asked by a page of the gateway for somebody: by the same road as calls, with the same rules and
//! credentials. It knows no HTML.

use super::forward::Bearer;
use super::listed_in_time;
use super::rest::tools_of;
use super::upstream_client::{Caller, Hello, UpstreamClient};
use crate::admission::Admission;
use crate::app::Worker;
use crate::audit::note;
use crate::diagnosis::Resolutions;
use crate::policy::access;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;

/// The most pages of a list, and the most that is kept of it.
const MAX_PAGES: usize = 50;
const MAX_ITEMS: usize = 1000;

/// A server with who asks it.
pub(crate) struct Direct {
    caller: Caller,
    server: Arc<Server>,
    resolutions: Arc<Resolutions>,
}

/// A session for several questions.
pub(crate) struct Talk<'d> {
    direct: &'d Direct,
    client: UpstreamClient,
    capabilities: Value,
}

impl Direct {
    /// `headers` are what the person wrote down for this server.
    pub(crate) fn new(
        worker: &Arc<Worker>,
        admission: &Arc<Admission>,
        headers: &HeaderMap,
        server: &Arc<Server>,
    ) -> Self {
        note::call();
        note::admitted(&worker.app, admission);
        note::server(server);
        let resolutions = Arc::new(Resolutions::default());
        Self {
            caller: Caller::new(worker, admission, headers)
                .without_mirrored()
                .noting(Some(&resolutions)),
            server: Arc::clone(server),
            resolutions,
        }
    }

    /// The tools that there are for whoever asks, each as JSON.
    pub(crate) async fn tools(&self) -> Result<Vec<String>, Refusal> {
        let (client, tools) = tools_of(&self.caller, &self.server, Bearer::ForThisServer).await?;
        client.close().await;
        Ok(tools.into_iter().map(|tool| tool.json).collect())
    }

    /// Calls a tool.
    pub(crate) async fn call(&self, name: &str, arguments: &RawValue) -> Result<Box<RawValue>, Refusal> {
        note::tool_call(name, Some(arguments.get()));
        note::tool(&self.server, name);
        access::permit(&self.caller.admission, &self.server)?.judge_call(name, Some(arguments))?;
        let talk = self.open().await?;
        let result = talk
            .client
            .request("tools/call", json!({"name": name}), Some(arguments))
            .await;
        talk.end().await;
        if let Ok(result) = &result {
            note::result(result.get());
        }
        result
    }

    /// Begins a session.
    pub(crate) async fn open(&self) -> Result<Talk<'_>, Refusal> {
        access::permit(&self.caller.admission, &self.server)?;
        let hello = Hello::default();
        let opening = UpstreamClient::open(&self.caller, &self.server, Bearer::ForThisServer, &hello);
        let (client, welcome) = listed_in_time(&self.caller.worker, &self.server, opening).await?;
        Ok(Talk {
            direct: self,
            client,
            capabilities: welcome.map_or(Value::Null, |welcome| welcome.capabilities),
        })
    }

    /// What the server was shown, as the debug headers name it.
    pub(crate) fn credential(&self) -> Option<&'static str> {
        self.resolutions.of(&self.server)
    }
}

impl Talk<'_> {
    /// Whether the server says that it has such things. One that says nothing may have them.
    pub(crate) fn offers(&self, what: &str) -> bool {
        self.capabilities.is_null() || !self.capabilities[what].is_null()
    }

    /// A whole list: `member` of the answers to `method`.
    pub(crate) async fn items(&self, method: &str, member: &str) -> Result<Vec<Box<RawValue>>, Refusal> {
        let direct = self.direct;
        listed_in_time(&direct.caller.worker, &direct.server, self.all(method, member)).await
    }

    async fn all(&self, method: &str, member: &str) -> Result<Vec<Box<RawValue>>, Refusal> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let params = cursor.map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
            let result = self.client.request(method, params, None).await?;
            let page = page(result.get(), member).ok_or_else(|| self.no_list(method))?;
            items.extend(page.0);
            cursor = page.1;
            if cursor.is_none() || items.len() > MAX_ITEMS {
                break;
            }
        }
        items.truncate(MAX_ITEMS);
        Ok(items)
    }

    fn no_list(&self, method: &str) -> Refusal {
        let message = format!(
            "The MCP server {} answered {method} with no list.",
            self.direct.server.name
        );
        Refusal::because(ErrorCode::UpstreamNotMcp, message)
    }

    /// Any request, which is about `name`; its result as it came.
    pub(crate) async fn ask(
        &self,
        method: &str,
        name: &str,
        params: Value,
    ) -> Result<Box<RawValue>, Refusal> {
        note::question(method, name);
        self.client.request(method, params, None).await
    }

    /// Ends the session.
    pub(crate) async fn end(self) {
        self.client.close().await;
    }
}

/// The items of one page, and where the next one begins.
fn page(result: &str, member: &str) -> Option<(Vec<Box<RawValue>>, Option<String>)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Next {
        #[serde(default)]
        next_cursor: Option<String>,
    }
    let members: std::collections::HashMap<String, Box<RawValue>> = serde_json::from_str(result).ok()?;
    let items = serde_json::from_str(members.get(member)?.get()).ok()?;
    let next: Next = serde_json::from_str(result).ok()?;
    Some((items, next.next_cursor))
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn a_page_has_items_and_perhaps_a_next_one() {
        let (items, next) = page(
            r#"{"tools": [], "prompts": [{"a": 1.50}], "nextCursor": "n"}"#,
            "prompts",
        )
        .expect("a page");
        assert_eq!((items[0].get(), next.as_deref()), (r#"{"a": 1.50}"#, Some("n")));
        assert!(page(r#"{"prompts": {}}"#, "prompts").is_none() && page("[]", "prompts").is_none());
    }
}
