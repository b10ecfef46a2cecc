CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    sealed BYTEA NOT NULL
);

CREATE TABLE grants (
    user_id TEXT NOT NULL,
    server_id TEXT NOT NULL,
    sealed BYTEA NOT NULL,
    version BIGINT NOT NULL,
    expires_at BIGINT,
    connected_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    lease_holder TEXT,
    lease_until BIGINT,
    PRIMARY KEY (user_id, server_id)
);

-- A row without sealed data is the lease of whoever registers right now.
CREATE TABLE registrations (
    server_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    sealed BYTEA,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    lease_holder TEXT,
    lease_until BIGINT,
    PRIMARY KEY (server_id, digest)
);

-- Authorization codes between the callback and the token request: no code is here, only a digest of it.
CREATE TABLE codes (
    digest TEXT NOT NULL PRIMARY KEY,
    bound TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE INDEX codes_by_end ON codes (expires_at);
