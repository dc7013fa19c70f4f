package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// accepted is a kind of value: how messages and docs call it, and how it is
// read.
type accepted[T any] struct {
	what  string
	parse func(value) (T, *refusal)
}

// refusal says which value is not what its key accepts, and why if that is
// not plain to see.
type refusal struct {
	value
	suffix string // of the path, for a part of the key's value
	reason string
}

func refuse(v value, reason string) *refusal {
	return &refusal{value: v, reason: reason}
}

func asText(v value) (string, bool) { return v.text, v.kind == text }

func asInteger(v value) (int64, bool) {
	if v.kind != integer && !v.untyped() {
		return 0, false
	}
	n, err := strconv.ParseInt(v.text, 10, 64)
	return n, err == nil
}

// textType reads texts that check agrees to.
func textType[T any](what string, check func(string) (T, error)) accepted[T] {
	return accepted[T]{what, func(v value) (T, *refusal) {
		var zero T
		s, ok := asText(v)
		if !ok {
			return zero, refuse(v, "")
		}
		t, err := check(s)
		if err != nil {
			return zero, refuse(v, err.Error())
		}
		return t, nil
	}}
}

var errNoReason = errors.New("")

func matching(what, pattern string) accepted[string] {
	re := regexp.MustCompile(`\A(?:` + pattern + `)\z`)
	return textType(what, func(s string) (string, error) {
		if !re.MatchString(s) {
			return "", errNoReason
		}
		return s, nil
	})
}

// oneOf reads a word of choices; those in later are known, but this version
// does not have them.
func oneOf(choices []string, later ...string) accepted[string] {
	return textType(strings.Join(choices, " | "), func(s string) (string, error) {
		switch {
		case slices.Contains(choices, s):
			return s, nil
		case slices.Contains(later, s):
			return "", errors.New("comes with a later version of walpost")
		}
		return "", errNoReason
	})
}

func integerBetween(least, most int64) accepted[int] {
	what := fmt.Sprintf("an integer from %d to %d", least, most)
	if least == most {
		what = fmt.Sprintf("the number %d", least)
	}
	return accepted[int]{what, func(v value) (int, *refusal) {
		n, ok := asInteger(v)
		if !ok || n < least || n > most {
			return 0, refuse(v, "")
		}
		return int(n), nil
	}}
}

// countOrBroker reads a positive number, or -1 for the broker's default.
func countOrBroker(most int64) accepted[int] {
	t := integerBetween(-1, most)
	parse := t.parse
	return accepted[int]{fmt.Sprintf("an integer from 1 to %d, or -1 for the broker's default", most), func(v value) (int, *refusal) {
		n, refused := parse(v)
		if refused == nil && n == 0 {
			return 0, refuse(v, "")
		}
		return n, refused
	}}
}

func yesNo() accepted[bool] {
	return accepted[bool]{"true | false", func(v value) (bool, *refusal) {
		if v.kind != boolean && !v.untyped() || v.text != "true" && v.text != "false" {
			return false, refuse(v, "")
		}
		return v.text == "true", nil
	}}
}

func sizeBetween(least, most int64) accepted[int] {
	what := fmt.Sprintf("a size from %s to %s, in bytes or with a unit: KiB, MiB, GiB, KB, MB, GB", formatSize(least), formatSize(most))
	return accepted[int]{what, func(v value) (int, *refusal) {
		n, ok := asInteger(v)
		if !ok && v.kind == text {
			n, ok = parseSize(v.text)
		}
		if !ok || n < least || n > most {
			return 0, refuse(v, "")
		}
		return int(n), nil
	}}
}

type unit struct {
	name  string
	bytes int64
}

// sizeUnits are ordered so that no name is a suffix of a later one.
func sizeUnits() []unit {
	return []unit{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}}
}

func parseSize(s string) (int64, bool) {
	for _, u := range sizeUnits() {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			return 0, false
		}
		return n * u.bytes, true
	}
	return 0, false
}

func formatSize(n int64) string {
	for _, u := range []unit{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.bytes && n%u.bytes == 0 {
			return fmt.Sprintf("%d%s", n/u.bytes, u.name)
		}
	}
	return fmt.Sprintf("%dB", n)
}

func durationBetween(least, most time.Duration) accepted[time.Duration] {
	what := fmt.Sprintf("a duration from %s to %s, such as 20s or 2m30s", shortDuration(least), shortDuration(most))
	return textType(what, func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if err != nil || d < least || d > most {
			return 0, errNoReason
		}
		return d, nil
	})
}

// shortDuration is 1h, not 1h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if rest, ok := strings.CutSuffix(s, "m0s"); ok {
		s = rest + "m"
	}
	if rest, ok := strings.CutSuffix(s, "h0m"); ok {
		s = rest + "h"
	}
	return s
}

func tableName() accepted[Table] {
	return textType(`schema.table as in SQL; names with other than lower-case letters, digits and _ in double quotes: '"My Schema"."Outbox"'`, ParseTable)
}

func identifier(what string) accepted[string] {
	return textType(what, func(s string) (string, error) {
		if !validIdentifier(s) {
			return "", errNoReason
		}
		return s, nil
	})
}

// maxTopic is Kafka's limit on topic names.
const maxTopic = 249

func validTopic(s string) bool {
	return len(s) <= maxTopic && s != "." && s != ".." && regexp.MustCompile(`\A[A-Za-z0-9._-]+\z`).MatchString(s)
}

func topicName() accepted[string] {
	return textType("a topic name: 1 to 249 of A-Z, a-z, 0-9, dot, _ and -", func(s string) (string, error) {
		if !validTopic(s) {
			return "", errNoReason
		}
		return s, nil
	})
}

// placeholder is where the row's aggregate type goes.
const placeholder = "{aggregate_type}"

func topicTemplate() accepted[string] {
	return textType("a topic name, in which "+placeholder+" stands for the row's aggregate type", func(s string) (string, error) {
		if !validTopic(strings.ReplaceAll(s, placeholder, "x")) {
			return "", errNoReason
		}
		return s, nil
	})
}

// addresses reads a list, or one text with commas so that a single variable
// can hold them all.
func addresses() accepted[[]string] {
	return accepted[[]string]{"a list of host:port, or one text with commas between them", func(v value) ([]string, *refusal) {
		items := v.items
		if s, ok := asText(v); ok {
			for part := range strings.SplitSeq(s, ",") {
				items = append(items, value{kind: text, pos: v.pos, text: strings.TrimSpace(part)})
			}
		}
		if len(items) == 0 {
			return nil, refuse(v, "")
		}
		var all []string
		for i, item := range items {
			s, ok := asText(item)
			if !ok || !validAddress(s, 1) {
				return nil, &refusal{value: item, suffix: fmt.Sprintf("[%d]", i)}
			}
			all = append(all, s)
		}
		return all, nil
	}}
}

func validAddress(s string, leastPort uint64) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || leastPort > 0 && host == "" || strings.ContainsAny(host, " /@") {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n >= leastPort
}

func listenAddress() accepted[string] {
	return textType(`host:port, or "" for no HTTP at all`, func(s string) (string, error) {
		if s != "" && !validAddress(s, 0) {
			return "", errNoReason
		}
		return s, nil
	})
}

func connection() accepted[DSN] {
	return textType("postgres://user@host:5432/database, or libpq's keyword=value pairs", ParseDSN)
}

func textMap() accepted[map[string]string] {
	return accepted[map[string]string]{"a mapping of names to single values", func(v value) (map[string]string, *refusal) {
		if v.kind != mapping {
			return nil, refuse(v, "")
		}
		all := make(map[string]string, len(v.fields))
		for _, f := range v.fields {
			if f.kind == null || f.kind == list || f.kind == mapping {
				return nil, &refusal{value: f.value, suffix: "." + f.name}
			}
			all[f.name] = f.text
		}
		return all, nil
	}}
}

// secret reads the value itself, or where it is kept.
func secret(environ Environ) accepted[Secret] {
	return accepted[Secret]{"a text, {file: path} or {env: NAME}", func(v value) (Secret, *refusal) {
		if s, ok := asText(v); ok && s != "" {
			return NewSecret(s), nil
		}
		if v.kind != mapping || len(v.fields) != 1 {
			return Secret{}, refuse(v, "")
		}
		f := v.fields[0]
		place, ok := asText(f.value)
		switch {
		case !ok || place == "":
		case f.name == "file":
			return secretFromFile(place), nil
		case f.name == "env" && validVariable(place):
			return secretFromEnv(place, environ), nil
		}
		return Secret{}, refuse(v, "")
	}}
}
