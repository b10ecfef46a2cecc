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
