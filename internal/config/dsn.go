package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
)

// DSN is a Postgres connection string, as a URL or as libpq's keyword=value
// pairs. Printing it shows user, hosts and database only.
type DSN struct {
	reveal                func() string // see Secret: never a field
	hosts, user, database string
}

// Reasons a connection string is refused. None quotes it: what looks like a
// port may be a piece of a password.
var (
	errDSNForm     = errors.New("neither a URL nor keyword=value pairs")
	errDSNHost     = errors.New("names no host")
	errDSNDatabase = errors.New("names no database")
	errDSNEncoding = errors.New("not a valid URL; special characters in user and password must be percent-encoded (@ is %40, / is %2F, : is %3A, # is %23)")
	errDSNPorts    = errors.New("names neither one port for all hosts nor one for each")
	errDSNQuote    = errors.New("a quote or an equals sign is missing in its keyword=value pairs")
)

// ParseDSN checks the form of a connection string, without connecting. Its
// errors quote nothing of it.
func ParseDSN(text string) (DSN, error) {
	rest, isURL := cutScheme(text)
	switch {
	case isURL:
		return parseURL(text, rest)
	case strings.Contains(text, "="):
		return parsePairs(text)
	}
	return DSN{}, errDSNForm
}

// servicePrefix marks hosts that are looked up in libpq's service file, which
// may name the database too.
const servicePrefix = "service="

// Reveal returns the connection string with everything in it.
func (d DSN) Reveal() string {
	if d.reveal == nil {
		return ""
	}
	return d.reveal()
}

// User is the role it connects as, "" where the string leaves it open.
func (d DSN) User() string { return d.user }

// Database is the database it connects to, "" where the string leaves it open.
func (d DSN) Database() string { return d.database }

func (d DSN) String() string {
	if d.reveal == nil {
		return ""
	}
	user := d.user
	if user != "" {
		user += "@"
	}
	return "postgres://" + user + d.hosts + "/" + d.database
}

// GoString implements [fmt.GoStringer].
func (d DSN) GoString() string { return d.String() }

// Format redacts under every verb.
func (d DSN) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, d.String()) }

// MarshalText redacts in JSON and YAML.
func (d DSN) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// LogValue implements [slog.LogValuer].
func (d DSN) LogValue() slog.Value { return slog.StringValue(d.String()) }

func cutScheme(text string) (rest string, ok bool) {
	for _, scheme := range []string{"postgres://", "postgresql://"} {
		if rest, ok := strings.CutPrefix(text, scheme); ok {
			return rest, true
		}
	}
	return text, false
}

// parseURL takes the URL apart by hand: net/url knows one host only, and its
// errors quote what they could not read.
func parseURL(text, rest string) (DSN, error) {
	if strings.Contains(rest, "#") {
		return DSN{}, errDSNEncoding
	}
	rest, rawQuery, _ := strings.Cut(rest, "?")
	authority, rawDatabase, _ := strings.Cut(rest, "/")
	userinfo, hosts := "", authority
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		userinfo, hosts = authority[:at], authority[at+1:]
	}
	rawUser, rawPassword, _ := strings.Cut(userinfo, ":")
	query, err := url.ParseQuery(rawQuery)
	if err != nil || strings.ContainsAny(rawDatabase, "/@") || !validUserinfo(userinfo) {
		return DSN{}, errDSNEncoding
	}
	user, err1 := url.PathUnescape(rawUser)
	_, err2 := url.PathUnescape(rawPassword)
	database, err3 := url.PathUnescape(rawDatabase)
	if errors.Join(err1, err2, err3) != nil || !validHosts(hosts) {
		return DSN{}, errDSNEncoding
	}
	if hosts == "" {
		if hosts, err = withPorts(query.Get("host"), query.Get("port")); err != nil {
			return DSN{}, err
		}
	}
	return finishDSN(text, hosts, first(user, query.Get("user")), first(database, query.Get("dbname")))
}

func parsePairs(text string) (DSN, error) {
	pairs, err := splitPairs(text)
	if err != nil {
		return DSN{}, err
	}
	hosts, err := withPorts(pairs["host"], pairs["port"])
	if err != nil {
		return DSN{}, err
	}
	if hosts == "" && pairs["service"] != "" {
		hosts = servicePrefix + pairs["service"]
	}
	return finishDSN(text, hosts, pairs["user"], first(pairs["dbname"], pairs["database"]))
}

// withPorts joins the lists of hosts and ports as libpq does: one port serves
// all hosts, an empty one is the default.
func withPorts(hosts, ports string) (string, error) {
	if hosts == "" || ports == "" {
		return hosts, nil
	}
	names, numbers := strings.Split(hosts, ","), strings.Split(ports, ",")
	if len(numbers) > 1 && len(numbers) != len(names) {
		return "", errDSNPorts
	}
	for i := range names {
		port := numbers[min(i, len(numbers)-1)]
		if port != "" {
			names[i] += ":" + port
		}
	}
	return strings.Join(names, ","), nil
}

func finishDSN(text, hosts, user, database string) (DSN, error) {
	switch {
	case hosts == "":
		return DSN{}, errDSNHost
	case database == "" && !strings.HasPrefix(hosts, servicePrefix):
		return DSN{}, errDSNDatabase // libpq would take one named like the user
	}
	return DSN{reveal: func() string { return text }, hosts: hosts, user: user, database: database}, nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// validUserinfo admits what net/url does, which reads the string in the end.
func validUserinfo(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r > 0x7f || !isDigit(r) && !isLetter(r) && !strings.ContainsRune("-._:~!$&'()*+,;=%@", r)
	})
}

// validHosts checks a comma-separated list of host[:port]; the empty list is
// valid.
func validHosts(hosts string) bool {
	if hosts == "" {
		return true
	}
	for host := range strings.SplitSeq(hosts, ",") {
		name, port := host, ""
		if strings.HasPrefix(host, "[") {
			end := strings.IndexByte(host, ']')
			if end < 0 {
				return false
			}
			name, port = host[1:end], strings.TrimPrefix(host[end+1:], ":")
		} else if colon := strings.IndexByte(host, ':'); colon >= 0 {
			name, port = host[:colon], host[colon+1:]
		}
		if name == "" || port != "" && !validPort(port) {
			return false
		}
	}
	return true
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// splitPairs follows libpq's rules: spaces around = are allowed, values may
// stand in single quotes, a backslash takes the next character literally.
func splitPairs(text string) (map[string]string, error) {
	pairs := map[string]string{}
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		name, rest, found := strings.Cut(text, "=")
		name = strings.TrimSpace(name)
		if !found || name == "" || strings.ContainsAny(name, " \t'\\") {
			return nil, errDSNQuote
		}
		value, rest, err := cutPairValue(strings.TrimLeft(rest, " \t"))
		if err != nil {
			return nil, err
		}
		pairs[name], text = value, rest
	}
	return pairs, nil
}

func cutPairValue(s string) (value, rest string, err error) {
	quoted := strings.HasPrefix(s, "'")
	if quoted {
		s = s[1:]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quoted && c == '\'', !quoted && (c == ' ' || c == '\t' || c == '\n'):
			return b.String(), s[i+1:], nil
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", "", errDSNQuote
	}
	return b.String(), "", nil
}
