package config

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

const redacted = "[redacted]"

// Secret is a value that is never printed. It is read where it is kept each
// time it is needed, so that a rotated password is found at the next connect.
//
// The value sits behind a function, not in a field: fmt can't call methods on
// unexported fields of other structs and would print a field's text.
type Secret struct {
	read func() (string, error)
}

// NewSecret is a secret whose value is known.
func NewSecret(text string) Secret {
	return Secret{read: func() (string, error) { return text, nil }}
}

func secretFromFile(path string) Secret {
	return Secret{read: func() (string, error) {
		raw, err := os.ReadFile(path) // #nosec G304 -- the operator names the file
		if err != nil {
			return "", &secretError{fmt.Errorf("read secret: %w", err), "make the file readable for walpost's user, or correct its path in the configuration"}
		}
		text := strings.TrimSuffix(string(raw), "\n")
		return strings.TrimSuffix(text, "\r"), nil
	}}
}

func secretFromEnv(name string, environ Environ) Secret {
	return Secret{read: func() (string, error) {
		text, ok := environ(name)
		if !ok {
			return "", &secretError{fmt.Errorf("read secret: environment variable %s is not set", name), "set the variable, or correct its name in the configuration"}
		}
		return text, nil
	}}
}

// Configured reports whether the configuration names this secret at all.
func (s Secret) Configured() bool { return s.read != nil }

// Read returns the value as it is now; "" for a secret that is not configured.
// A file's last line end is not part of it. The error names the file or
// variable, never the value.
func (s Secret) Read() (string, error) {
	if s.read == nil {
		return "", nil
	}
	return s.read()
}

func (s Secret) String() string {
	if s.read == nil {
		return ""
	}
	return redacted
}

// GoString implements [fmt.GoStringer].
func (s Secret) GoString() string { return s.String() }

// Format redacts under every verb, also those that fmt would refuse by
// printing the fields.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText redacts in JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

type secretError struct {
	err    error
	remedy string
}

func (e *secretError) Error() string  { return e.err.Error() }
func (e *secretError) Unwrap() error  { return e.err }
func (e *secretError) Remedy() string { return e.remedy }
