package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Environ looks a variable up, as [os.LookupEnv] does.
type Environ func(name string) (value string, ok bool)

// expand replaces ${VAR} and ${VAR:-default}; the default also stands in for
// an empty variable, as in a shell, and is not expanded itself. $$ is one
// dollar sign, and a dollar sign before anything else is itself.
//
// It works on values after parsing, so what a variable holds can never become
// structure of the file.
func expand(s string, environ Environ) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "$")
		b.WriteString(before)
		switch {
		case !found:
			return b.String(), nil
		case strings.HasPrefix(after, "$"):
			b.WriteByte('$')
			s = after[1:]
		case strings.HasPrefix(after, "{"):
			reference, rest, closed := strings.Cut(after[1:], "}")
			if !closed {
				return "", errors.New("found ${ without its }; accepted: ${VAR}, ${VAR:-default}, or $$ for a dollar sign")
			}
			text, err := lookup(reference, environ)
			if err != nil {
				return "", err
			}
			b.WriteString(text)
			s = rest
		default:
			b.WriteByte('$')
			s = after
		}
	}
}

func lookup(reference string, environ Environ) (string, error) {
	name, fallback, hasFallback := strings.Cut(reference, ":-")
	if !validVariable(name) {
		return "", errors.New("found a ${…} that names no variable; accepted: ${VAR}, ${VAR:-default}, or $$ for a dollar sign")
	}
	text, ok := environ(name)
	switch {
	case hasFallback && text == "":
		return fallback, nil
	case !ok:
		return "", fmt.Errorf("the environment variable %s is not set; set it, or write ${%s:-default}", name, name)
	}
	return text, nil
}

func validVariable(name string) bool {
	return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(name)
}
