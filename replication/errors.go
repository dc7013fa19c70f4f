package replication

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// Error says what this package was doing, why it failed, which condition that
// puts the relay in and what an operator can do.
type Error struct {
	Op    string // what was being done, to which object
	Cause error

	condition string
	remedy    string
	final     bool // the same attempt would fail again
}

func (e *Error) Error() string { return e.Op + ": " + e.Cause.Error() }

func (e *Error) Unwrap() error { return e.Cause }

// Condition is a name of the relay's registry.
func (e *Error) Condition() string { return e.condition }

// Remedy is what an operator can do; empty where the condition's own says it.
func (e *Error) Remedy() string { return e.remedy }

// Retryable reports whether a later attempt may succeed.
func (e *Error) Retryable() bool { return !e.final }

// classify wraps an error of the server or the network.
func classify(op string, err error) error {
	if err == nil {
		return nil
	}
	var known *Error
	if errors.As(err, &known) {
		return fmt.Errorf("%s: %w", op, err)
	}
	e := &Error{Op: op, Cause: err, condition: "postgres_unreachable"}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return e
	}
	switch pg.Code {
	case "28000", "28P01", "42501": // invalid authorization, invalid password, insufficient privilege
		e.condition = "postgres_auth_failed"
	case "3D000": // no such database
		e.condition, e.remedy = "postgres_unreachable", "create the database or correct its name in postgres.url"
	case "55006": // object in use
		e.condition = "slot_busy"
	case "42704": // undefined object: a slot at START_REPLICATION, a publication afterwards
		e.condition, e.final = "publication_missing", true
	case "55000": // object not in prerequisite state: the slot is invalidated
		e.condition, e.final = "slot_lost", true
	case "XX001", "XX002": // corrupt data or index
		e.condition, e.final = "decode_failed", true
	}
	return e
}

func decodeError(at uint64, cause error) error {
	return &Error{
		Op:    "decode change of the transaction that commits at " + FormatLSN(at),
		Cause: cause, condition: "decode_failed", final: true,
		remedy: "nothing past this transaction is confirmed; report the error with the versions of Postgres and walpost",
	}
}
