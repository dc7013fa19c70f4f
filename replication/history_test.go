package replication

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"
)

func TestParseHistory(t *testing.T) {
	for _, tc := range []struct {
		content string
		want    []Switch
	}{
		{"", nil},
		{"1\t0/3000148\tno recovery target specified\n", []Switch{{1, 0x3000148}}},
		{"# a comment\n1\t0/3000148\treached consistency\n\n2\t1/0\tbefore 2026-01-02 03:04:05+00\n", []Switch{{1, 0x3000148}, {2, 0x1_00000000}}},
	} {
		got, err := parseHistory(tc.content)
		if d := cmp.Diff(tc.want, got); d != "" || err != nil {
			t.Errorf("%q: %v %s", tc.content, err, d)
		}
	}
	for _, odd := range []string{"1\n", "x\t0/1\treason\n", "1\tnowhere\treason\n", "99999999999 0/1\n"} {
		if got, err := parseHistory(odd); err == nil {
			t.Errorf("%q gives %v", odd, got)
		}
	}
}

// The first timeline has no history file; one that is gone proves nothing.
func TestHistoryThatIsNotThere(t *testing.T) {
	for timeline, asked := range map[string]bool{"1": false, "2": true} {
		s := newServer(t)
		s.answers["IDENTIFY_SYSTEM"] = answer{rows: [][]string{{"7000000000000000001", timeline, "1/2000", "app"}}}
		s.answers["TIMELINE_HISTORY 2"] = answer{err: &pgproto3.ErrorResponse{Severity: "ERROR", Code: "58P01", Message: "could not open file"}}
		conn, facts := dial(t, s)
		_ = conn.Close(t.Context())
		if facts.History != nil {
			t.Errorf("history = %v", facts.History)
		}
		found := false
		for _, q := range s.asked() {
			found = found || q == "TIMELINE_HISTORY "+timeline
		}
		if found != asked {
			t.Errorf("timeline %s: asked for its history: %t", timeline, found)
		}
	}
}
