CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT;

CREATE TABLE grants (
    user_id TEXT NOT NULL,
    server_id TEXT NOT NULL,
    sealed BLOB NOT NULL,
    version INTEGER NOT NULL,
    expires_at INTEGER,
    connected_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    lease_holder TEXT,
    lease_until INTEGER,
    PRIMARY KEY (user_id, server_id)
) STRICT;

-- A row without sealed data is the lease of whoever registers right now.
CREATE TABLE registrations (
    server_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    sealed BLOB,
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    lease_holder TEXT,
    lease_until INTEGER,
    PRIMARY KEY (server_id, digest)
) STRICT;

-- Authorization codes between the callback and the token request: no code is here, only a digest of it.
CREATE TABLE codes (
    digest TEXT NOT NULL PRIMARY KEY,
    bound TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX codes_by_end ON codes (expires_at);

CREATE INDEX grants_by_server ON grants (server_id);

-- Virtual keys: no key is here, only a digest of it and its last characters.
CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    hint TEXT NOT NULL,
    alias TEXT UNIQUE,
    user_id TEXT,
    document TEXT NOT NULL,
    blocked INTEGER NOT NULL,
    expires_at INTEGER,
    created_at INTEGER NOT NULL,
    created_by TEXT,
    updated_at INTEGER NOT NULL,
    version INTEGER NOT NULL
) STRICT;

CREATE INDEX api_keys_by_user ON api_keys (user_id) WHERE user_id IS NOT NULL;

-- Apart from the keys, so that a use is no change.
CREATE TABLE key_uses (
    key_id TEXT NOT NULL PRIMARY KEY,
    used_at INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    role TEXT NOT NULL,
    alias TEXT,
    email TEXT,
    blocked INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    version INTEGER NOT NULL
) STRICT;

-- `folded` is the name in lower case: the databases do not agree on what that is.
CREATE TABLE servers (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    folded TEXT NOT NULL UNIQUE,
    sealed BLOB NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT,
    updated_at INTEGER NOT NULL,
    updated_by TEXT,
    expires_at INTEGER
) STRICT;

-- Keys of people's own for servers.
CREATE TABLE user_secrets (
    user_id TEXT NOT NULL,
    server_id TEXT NOT NULL,
    sealed BLOB NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, server_id)
) STRICT;

-- Sessions of the console: no cookie is here, only a digest of it.
CREATE TABLE sessions (
    digest BLOB NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    holder TEXT NOT NULL,
    user_id TEXT,
    key_id TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    agent TEXT
) STRICT;

CREATE INDEX sessions_by_end ON sessions (expires_at);
CREATE INDEX sessions_by_user ON sessions (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX sessions_by_key ON sessions (key_id) WHERE key_id IS NOT NULL;

CREATE TABLE instances (
    id TEXT NOT NULL PRIMARY KEY,
    version TEXT NOT NULL,
    address TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    config_revision TEXT NOT NULL
) STRICT;

-- What was done, and what became of it. It outlives what it names.
CREATE TABLE audit (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    request_id TEXT,
    user_id TEXT,
    key_id TEXT,
    key_alias TEXT,
    client TEXT,
    address TEXT,
    server TEXT,
    tool TEXT,
    outcome TEXT,
    status INTEGER,
    flow TEXT,
    trace TEXT
) STRICT;

CREATE INDEX audit_by_time ON audit (at_ms);
-- Most entries are calls that went well: those are found by their time.
CREATE INDEX audit_by_kind ON audit (kind, at_ms) WHERE kind <> 'call';
CREATE INDEX audit_by_outcome ON audit (outcome, at_ms) WHERE outcome <> 'ok';
CREATE INDEX audit_by_request ON audit (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX audit_by_user ON audit (user_id, at_ms) WHERE user_id IS NOT NULL;
CREATE INDEX audit_by_key ON audit (key_id, at_ms) WHERE key_id IS NOT NULL;
CREATE INDEX audit_by_server ON audit (server, at_ms) WHERE server IS NOT NULL;
CREATE INDEX audit_by_tool ON audit (tool, at_ms) WHERE tool IS NOT NULL;
CREATE INDEX audit_by_flow ON audit (flow, at_ms) WHERE flow IS NOT NULL;

-- For whoever keeps copies: a revision goes up in the transaction of each change.
CREATE TABLE changes (
    kind TEXT NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL
) STRICT;

INSERT INTO changes (kind, revision)
VALUES ('grants', 0), ('keys', 0), ('servers', 0), ('sessions', 0), ('users', 0);

-- When each grant or secret last came, went or was replaced; what a renewal does is not here.
CREATE TABLE grant_changes (
    user_id TEXT NOT NULL,
    server_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (user_id, server_id)
) STRICT;

CREATE INDEX grant_changes_by_revision ON grant_changes (revision);

CREATE TRIGGER api_keys_inserted AFTER INSERT ON api_keys BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'keys';
END;

CREATE TRIGGER api_keys_updated AFTER UPDATE OF version ON api_keys BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'keys';
END;

CREATE TRIGGER api_keys_deleted AFTER DELETE ON api_keys BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'keys';
END;

CREATE TRIGGER users_inserted AFTER INSERT ON users BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'users';
END;

CREATE TRIGGER users_updated AFTER UPDATE OF version ON users BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'users';
END;

CREATE TRIGGER users_deleted AFTER DELETE ON users BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'users';
END;

CREATE TRIGGER servers_inserted AFTER INSERT ON servers BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'servers';
END;

CREATE TRIGGER servers_updated AFTER UPDATE OF version ON servers BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'servers';
END;

CREATE TRIGGER servers_deleted AFTER DELETE ON servers BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'servers';
END;

CREATE TRIGGER sessions_inserted AFTER INSERT ON sessions BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'sessions';
END;

CREATE TRIGGER sessions_deleted AFTER DELETE ON sessions BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'sessions';
END;

CREATE TRIGGER grants_inserted AFTER INSERT ON grants BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'grants';
    INSERT INTO grant_changes (user_id, server_id, revision)
    SELECT new.user_id, new.server_id, revision FROM changes WHERE kind = 'grants'
    ON CONFLICT (user_id, server_id) DO UPDATE SET revision = excluded.revision;
END;

CREATE TRIGGER grants_updated AFTER UPDATE OF connected_at ON grants BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'grants';
    INSERT INTO grant_changes (user_id, server_id, revision)
    SELECT new.user_id, new.server_id, revision FROM changes WHERE kind = 'grants'
    ON CONFLICT (user_id, server_id) DO UPDATE SET revision = excluded.revision;
END;

CREATE TRIGGER grants_deleted AFTER DELETE ON grants BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'grants';
    INSERT INTO grant_changes (user_id, server_id, revision)
    SELECT old.user_id, old.server_id, revision FROM changes WHERE kind = 'grants'
    ON CONFLICT (user_id, server_id) DO UPDATE SET revision = excluded.revision;
END;

CREATE TRIGGER user_secrets_inserted AFTER INSERT ON user_secrets BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'grants';
    INSERT INTO grant_changes (user_id, server_id, revision)
    SELECT new.user_id, new.server_id, revision FROM changes WHERE kind = 'grants'
    ON CONFLICT (user_id, server_id) DO UPDATE SET revision = excluded.revision;
END;

CREATE TRIGGER user_secrets_updated AFTER UPDATE OF version ON user_secrets BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'grants';
    INSERT INTO grant_changes (user_id, server_id, revision)
    SELECT new.user_id, new.server_id, revision FROM changes WHERE kind = 'grants'
    ON CONFLICT (user_id, server_id) DO UPDATE SET revision = excluded.revision;
END;

CREATE TRIGGER user_secrets_deleted AFTER DELETE ON user_secrets BEGIN
    UPDATE changes SET revision = revision + 1 WHERE kind = 'grants';
    INSERT INTO grant_changes (user_id, server_id, revision)
    SELECT old.user_id, old.server_id, revision FROM changes WHERE kind = 'grants'
    ON CONFLICT (user_id, server_id) DO UPDATE SET revision = excluded.revision;
END;
