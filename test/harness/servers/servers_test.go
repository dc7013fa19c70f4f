package servers

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestCheckReport is the proof that a run without its servers can't pass.
func TestCheckReport(t *testing.T) {
	for name, test := range map[string]struct {
		report string
		mode   Mode
		want   string // in the summary; empty: an error
	}{
		"both kinds":      {"containers postgres postgres:18\ncontainers kafka k\ncontainers postgres postgres:18\n", Containers, "2 × postgres postgres:18, 1 × kafka k"},
		"empty":           {"", Containers, ""},
		"no kafka":        {"containers postgres postgres:18\n", Containers, ""},
		"no postgres":     {"containers kafka k\n", Containers, ""},
		"other mode":      {"native postgres 18\nnative kafka 4.3.1\n", Containers, ""},
		"one of another":  {"containers postgres p\ncontainers kafka k\nnative kafka 4.3.1\n", Containers, ""},
		"native as meant": {"native postgres 18\nnative kafka 4.3.1\n", Native, "1 × postgres 18, 1 × kafka 4.3.1"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := CheckReport(test.report, test.mode)
			if (test.want == "") != (err != nil) || !strings.Contains(got, test.want) {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestReportIsAppendedTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report")
	t.Setenv(EnvReport, path)
	for _, name := range []string{namePostgres, nameKafka} {
		if err := report(Native, &Server{name: name, Version: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckReport(string(text), Native); err != nil {
		t.Error(err)
	}
}

// TestForcedModeHasNoFallback: what was asked for and can't be had must fail.
func TestForcedModeHasNoFallback(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"containers without an engine": {EnvServers: "containers", "DOCKER_HOST": "unix:///nonexistent/docker.sock"},
		"native without java":          {EnvServers: "native", "JAVA_HOME": "/nonexistent"},
		"neither":                      {EnvServers: "", "DOCKER_HOST": "unix:///nonexistent/docker.sock", "JAVA_HOME": "/nonexistent"},
		"unknown mode":                 {EnvServers: "cloud"},
	} {
		t.Run(name, func(t *testing.T) {
			for key, value := range env {
				t.Setenv(key, value)
			}
			if set, err := Choose(context.Background(), t.Logf); err == nil {
				t.Errorf("want an error, got %s", set.Describe())
			}
		})
	}
}

func TestFallbackIsTold(t *testing.T) {
	java := t.TempDir()
	if err := os.MkdirAll(filepath.Join(java, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(java, "bin", "java"), []byte("#!/bin/sh\necho 'openjdk version \"21.0.1\"' >&2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv(EnvServers, "")
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
	t.Setenv("JAVA_HOME", java)
	set, err := Choose(context.Background(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if got := set.Describe(); set.Mode() != Native || !strings.Contains(got, "java 21") || !strings.Contains(got, "no containers: ") {
		t.Errorf("description %q", got)
	}
	if err := set.Close(); err != nil {
		t.Error(err)
	}
}
