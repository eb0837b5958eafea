-- Requests that made something, by the ids that clients gave them: a repeat is answered with what was made.
CREATE TABLE requests (
    -- The user's id; of somebody who is no user, his name.
    owner   TEXT NOT NULL,
    id      TEXT NOT NULL,
    -- SHA-256 of the request, without secrets.
    digest  BLOB NOT NULL,
    -- Id of the object, or of the operation that makes it.
    object  TEXT NOT NULL,
    made_ns INTEGER NOT NULL,
    PRIMARY KEY (owner, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_time ON requests (owner, made_ns);
CREATE INDEX requests_by_object ON requests (object);
