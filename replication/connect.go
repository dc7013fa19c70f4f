package replication

import (
	"errors"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// hostTimeout bounds the attempt at one of several hosts: one that hangs must
// not use up the time of the one that was promoted.
const hostTimeout = 2 * time.Second

// SeekPrimary makes conf, where it names several hosts, lead to the one that is
// not in recovery. A target_session_attrs of the connection string stays; "any",
// which is also what an absent one means, can't be what is wanted here: nothing
// can be relayed from a standby. It returns how many hosts there are.
func SeekPrimary(conf *pgconn.Config) (hosts int) {
	if hosts = countHosts(conf); hosts < 2 {
		return hosts
	}
	if conf.ValidateConnect == nil {
		conf.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	}
	if conf.ConnectTimeout == 0 || conf.ConnectTimeout > hostTimeout {
		conf.ConnectTimeout = hostTimeout
	}
	return hosts
}

// countHosts: the same host follows itself where TLS is tried first, then none.
func countHosts(conf *pgconn.Config) int {
	type address struct {
		host string
		port uint16
	}
	seen := map[address]bool{{conf.Host, conf.Port}: true}
	for _, f := range conf.Fallbacks {
		seen[address{f.Host, f.Port}] = true
	}
	return len(seen)
}

// configure reads the URL and the password. limit bounds the connection and
// what is asked on it.
func (c *Conn) configure() (conf *pgconn.Config, limit time.Duration, err error) {
	if conf, err = parseURL(c.cfg.URL); err != nil {
		return nil, 0, err
	}
	if c.cfg.Password != nil {
		if conf.Password, err = c.cfg.Password(); err != nil {
			return nil, 0, &Error{Op: "read the Postgres password", Cause: err, condition: "postgres_auth_failed"}
		}
	}
	others := SeekPrimary(conf) - 1
	conf.RuntimeParams["replication"] = "database"
	conf.RuntimeParams["application_name"] = c.cfg.ApplicationName
	conf.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		c.frames = newFrames(r)
		return pgproto3.NewFrontend(c.frames, w)
	}
	return conf, c.cfg.ConnectTimeout + time.Duration(others)*hostTimeout, nil
}

// connectError: an undefined object at this point is a parameter of the URL that
// the server doesn't know. Where the primary is looked for and only standbys
// answer, one of them may be about to be promoted.
func connectError(err error) error {
	const op = "connect to Postgres"
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == "42704":
		return &Error{Op: op, Cause: err, final: true, remedy: "correct postgres.url"}
	case pg == nil && (errors.Is(err, pgconn.ErrStandbyConnection) || errors.Is(err, pgconn.ErrReadOnlyConnection)):
		return &Error{Op: op, Cause: err, condition: "server_in_recovery"}
	}
	return classify(op, err)
}

// parseURL is pgconn's, but for its errors: those quote the string, in which a
// mistake can make the password unrecognisable.
func parseURL(url string) (*pgconn.Config, error) {
	conf, err := pgconn.ParseConfig(url)
	if err != nil {
		return nil, urlError(parseReason(err))
	}
	hosts := []string{conf.Host}
	for _, f := range conf.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	for _, host := range hosts {
		// What follows an unescaped @ of a password would show as a host's
		// name. A socket may have one in its path, or at its beginning.
		if !strings.HasPrefix(host, "/") && strings.LastIndexByte(host, '@') > 0 {
			return nil, urlError("the host contains an @")
		}
	}
	return conf, nil
}

// parseReason is what a parse error says less what it quotes.
func parseReason(err error) string {
	text := err.Error()
	for _, form := range []string{"failed to parse as URL", "failed to parse as keyword/value"} {
		if strings.Contains(text, form) {
			return form // the cause would name the word it stumbled over
		}
	}
	const afterQuote = "`: "
	i := strings.LastIndex(text, afterQuote)
	if i < 0 {
		return "not a connection URL"
	}
	return text[i+len(afterQuote):]
}

func urlError(reason string) error {
	return &Error{Op: "parse postgres.url", Cause: errors.New(reason), condition: "postgres_unreachable", final: true,
		remedy: "correct postgres.url; in a URL every special character of a password is written as % and two digits, and postgres.password keeps it out altogether"}
}
