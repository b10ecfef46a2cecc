//! Two gateways on one PostgreSQL, as behind a load balancer without sticky sessions. They share a database and the
//! keys, and nothing else.

use crate::child::{ConfigFile, Program};
use crate::harness::{KEY, Start, TestGateway, got, personal};
use crate::kept_harness::{Door, Fault, Site, Stage};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, QueryBuilder};
use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use vestibule_store::MasterKeys;
use vestibule_testkit::DEADLINE;

/// By what name the load balancer is called.
const PUBLIC: &str = "http://gateway.test";

/// A database of a test's own, and the keys to it.
pub(crate) struct Shared {
    directory: TempDir,
    admin: PgConnectOptions,
    name: String,
    url: String,
}

impl Shared {
    pub(crate) async fn new() -> Self {
        let server = std::env::var_os("VESTIBULE_TEST_POSTGRES")
            .expect("VESTIBULE_TEST_POSTGRES names no PostgreSQL server; run scripts/test unit, or scripts/test.d/postgres.sh cargo test")
            .into_string()
            .expect("text");
        let directory = tempfile::tempdir().expect("a directory");
        let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
        keys.write_to(&directory.path().join("keys")).expect("written");
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes).expect("random");
        let name = format!("vestibule_it_{:016x}", u64::from_be_bytes(bytes));
        let (base, query) = server.split_once('?').unwrap_or((&server, ""));
        let (base, _) = base.rsplit_once('/').expect("a database name");
        let this = Self {
            directory,
            admin: PgConnectOptions::from_str(&server).expect("a PostgreSQL URL"),
            url: format!("{base}/{name}?{query}"),
            name,
        };
        this.admin("CREATE DATABASE ", "").await;
        this
    }

    /// A statement about the database.
    pub(crate) async fn admin(&self, before: &'static str, after: &'static str) {
        let mut admin = self.admin.connect().await.expect("the PostgreSQL server answers");
        let mut sql = QueryBuilder::<sqlx::Postgres>::new(before);
        sql.push(&self.name).push(after);
        admin.execute(sql.build()).await.expect("done");
        admin.close().await.expect("closed");
    }

    pub(crate) async fn remove(self) {
        self.admin("DROP DATABASE ", " WITH (FORCE)").await;
    }

    /// A statement within it.
    async fn behind(&self, sql: &'static str) -> u64 {
        let options = self.admin.clone().database(&self.name);
        let options = options.options([("search_path", "vestibule")]);
        let mut connection = options.connect().await.expect("connects");
        let done = connection.execute(sql).await.expect("done");
        done.rows_affected()
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Nobody can connect, and whoever is connected is no longer.
    pub(crate) async fn goes(&self) {
        self.admin("ALTER DATABASE ", " ALLOW_CONNECTIONS false").await;
        let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'vestibule_it_%' AND datname = '";
        self.admin(ended, "'").await;
    }

    /// It is there again.
    pub(crate) async fn comes_back(&self) {
        self.admin("ALTER DATABASE ", " ALLOW_CONNECTIONS true").await;
    }

    fn keys(&self) -> String {
        self.directory.path().join("keys").display().to_string()
    }

    pub(crate) async fn gateway(&self, servers: &str) -> TestGateway {
        Start::new(personal(servers, ""))
            .database(&self.url)
            .environment("VESTIBULE_MASTER_KEY_FILE", &self.keys())
            .environment("PROXY_BASE_URL", PUBLIC)
            .start()
            .await
    }
}

/// Two gateways and the doors to them.
async fn pair(shared: &Shared, site: &Site) -> ([TestGateway; 2], [Door; 2]) {
    let servers = site.provider.registered("one", &site.upstream, "");
    let gateways = [shared.gateway(&servers).await, shared.gateway(&servers).await];
    let doors = [0, 1].map(|index| Door::of(&gateways[index]).called_as(PUBLIC));
    (gateways, doors)
}

/// Each step of a sign-in at the other one.
async fn sign_in_across(site: &Site, doors: &[Door; 2]) {
    let [a, b] = doors;
    let client = a.register().await;
    let away = b.authorize(&client).await;
    let code = a.back(&away, &site.provider.approve(&away.location)).await;
    let answer = got(b.keyed_token(&code)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_sign_in_goes_on_at_whichever_replica() {
    let (shared, site) = (Shared::new().await, Site::start().await);
    let (_gateways, doors) = pair(&shared, &site).await;
    // Equal clients are one registration, also when they come to both at once.
    tokio::join!(doors[0].register(), doors[1].register());
    sign_in_across(&site, &doors).await;
    assert_eq!(site.provider.counts().registered, 1);
    for door in &doors {
        door.works().await;
    }
    shared.remove().await;
}

/// `count` calls at once, over all the doors in turn; every one has to work.
async fn crowd(doors: &[Door], count: usize) {
    let mut calls = JoinSet::new();
    for index in 0..count {
        let door = doors[index % doors.len()].clone();
        calls.spawn(async move { door.works().await });
    }
    while let Some(call) = calls.join_next().await {
        call.expect("a call that works");
    }
}

#[tokio::test]
async fn a_hundred_callers_of_an_expired_token_are_one_refresh() {
    let (shared, site) = (Shared::new().await, Site::start().await);
    let (gateways, doors) = pair(&shared, &site).await;
    sign_in_across(&site, &doors).await;
    for round in 1..=3 {
        site.advance(&[&gateways[0], &gateways[1]], 301);
        crowd(&doors, 100).await;
        let counts = site.provider.counts();
        assert_eq!((counts.refreshing, counts.reused), (round, 0));
    }
    // The server has refused what is in the memory of both.
    site.provider.end_access();
    crowd(&doors, 100).await;
    let counts = site.provider.counts();
    assert_eq!((counts.refreshing, counts.reused), (4, 0));
    shared.remove().await;
}

#[tokio::test]
async fn whoever_dies_with_the_lease_is_followed_by_another() {
    let (shared, site) = (Shared::new().await, Site::start().await);
    let (gateways, doors) = pair(&shared, &site).await;
    sign_in_across(&site, &doors).await;
    doors[1].works().await;
    site.advance(&[&gateways[0], &gateways[1]], 301);
    // The first asks, and its answer never comes: to all others it is as good as dead.
    let hold = site.provider.hold(Stage::Before);
    let first = tokio::spawn({
        let door = doors[0].clone();
        async move { door.called().await }
    });
    hold.arrived().await;
    site.provider.hold_no_more();
    let second = tokio::spawn({
        let door = doors[1].clone();
        async move { door.works().await }
    });
    // Its lease counts while it lasts: 10 s for the request and 5 s for the store.
    let leased = "SELECT 1 FROM grants WHERE lease_holder IS NOT NULL";
    assert_eq!(shared.behind(leased).await, 1);
    site.advance(&[&gateways[1]], 14);
    assert_eq!(site.provider.counts().refreshing, 1);
    assert!(!second.is_finished(), "it waits for the one with the lease");
    site.advance(&[&gateways[1]], 2);
    timeout(DEADLINE, second)
        .await
        .expect("in time")
        .expect("it works");
    let counts = site.provider.counts();
    assert_eq!((counts.refreshing, counts.refreshed, counts.reused), (2, 1, 0));

    // The first wakes with a refresh token that is spent, and does no harm beyond its own call.
    first.abort();
    doors[1].works().await;
    shared.remove().await;
}

#[tokio::test]
async fn what_is_deleted_at_one_is_over_at_the_other_within_a_second() {
    let (shared, site) = (Shared::new().await, Site::start().await);
    let (_gateways, doors) = pair(&shared, &site).await;
    sign_in_across(&site, &doors).await;
    for door in &doors {
        door.works().await;
    }
    assert_eq!(shared.behind("DELETE FROM grants").await, 1);
    let deleted = Instant::now();
    for door in &doors {
        door.until("asked to sign in", |answer| answer.status == 401)
            .await;
        door.wants_sign_in(None).await;
    }
    assert!(
        deleted.elapsed() < Duration::from_secs(1),
        "{:?}",
        deleted.elapsed()
    );
    // And a new sign-in at one is a sign-in at the other.
    sign_in_across(&site, &doors).await;
    for door in &doors {
        door.works().await;
        assert_eq!(site.provider.shown(), site.provider.last());
    }
    shared.remove().await;
}

#[tokio::test]
async fn a_new_sign_in_at_one_replaces_what_the_other_has() {
    let (shared, site) = (Shared::new().await, Site::start().await);
    let (gateways, doors) = pair(&shared, &site).await;
    sign_in_across(&site, &doors).await;
    for door in &doors {
        door.works().await;
    }
    // A renewal is under way at one while the person signs in at the other.
    site.advance(&[&gateways[0], &gateways[1]], 301);
    site.provider
        .set(|manners| manners.fault = Some(Fault::Error(400, "invalid_grant")));
    let hold = site.provider.hold(Stage::Before);
    let refused = tokio::spawn({
        let door = doors[0].clone();
        async move { door.called().await }
    });
    hold.arrived().await;
    site.provider.hold_no_more();
    site.provider.set(|manners| manners.fault = None);
    doors[1].sign_in(&site.provider).await;
    site.provider
        .set(|manners| manners.fault = Some(Fault::Error(400, "invalid_grant")));
    hold.open();
    // What ends the old grant does not end the new one.
    let answer = refused.await.expect("answered");
    assert_eq!(answer.status, 200, "{answer:?}");
    for door in &doors {
        door.works().await;
        assert_eq!(site.provider.shown(), site.provider.last());
    }
    shared.remove().await;
}

#[tokio::test]
async fn without_its_database_a_replica_serves_what_it_has() {
    let (shared, site) = (Shared::new().await, Site::start().await);
    let (gateways, doors) = pair(&shared, &site).await;
    sign_in_across(&site, &doors).await;
    doors[0].works().await;
    shared.goes().await;
    site.advance(&[&gateways[0], &gateways[1]], 250);
    doors[0].works().await;
    site.advance(&[&gateways[0], &gateways[1]], 51);
    for door in &doors {
        let answer = door.called().await;
        assert_eq!(
            (answer.status, answer.code()),
            (503, "store_unavailable"),
            "{answer:?}"
        );
    }
    assert_eq!(site.provider.counts().refreshing, 0);
    shared.comes_back().await;
    for door in &doors {
        door.works().await;
    }
    assert_eq!(site.provider.counts().refreshed, 1);
    shared.remove().await;
}

#[tokio::test]
async fn two_processes_are_one_gateway() {
    let (shared, site) = (Shared::new().await, Site::start().await);
    // So short that every call finds it over.
    site.provider
        .set(|manners| manners.expires_in = Some(serde_json::json!(3600)));
    let config = ConfigFile::new(&personal(
        &site.provider.registered("one", &site.upstream, ""),
        "",
    ));
    let keys = shared.keys();
    let environment = [
        ("DATABASE_URL", shared.url.as_str()),
        ("VESTIBULE_MASTER_KEY_FILE", keys.as_str()),
        ("PROXY_BASE_URL", PUBLIC),
    ];
    let mut programs = [
        Program::serve(&config, &environment),
        Program::serve(&config, &environment),
    ];
    let mut doors = Vec::new();
    for program in &mut programs {
        doors.push(Door::new(program.base().await, "one").called_as(PUBLIC));
    }
    let doors: [Door; 2] = doors.try_into().unwrap_or_else(|_| unreachable!("two"));
    sign_in_across(&site, &doors).await;
    crowd(&doors, 20).await;
    for round in 1..=3 {
        site.provider.end_access();
        crowd(&doors, 100).await;
        let counts = site.provider.counts();
        assert_eq!((counts.refreshing, counts.reused), (round, 0));
    }
    site.upstream.assert_never_seen(KEY);
    for program in programs {
        assert_eq!(program.terminated().await.code, Some(0));
    }
    shared.remove().await;
}
