package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/walpost/walpost/outbox"
)

// active is the record in testdata/record-v1-active.json.
func active() Record {
	return Record{
		Pipeline:       "open_trainings",
		SystemID:       "7301234567890123456",
		Database:       "trainings",
		Timeline:       1,
		Slot:           "open_trainings",
		Publication:    "sha256:6c1a",
		Configuration:  "sha256:90fe",
		KafkaClusterID: "4L6g3nShT-eMCtK--X86sw",
		Generation:     1,
		Phase:          Active,
		Confirmed:      0x16B3748,
		Last: &Event{
			Position:   outbox.Position{Generation: 1, Commit: 0x16B3700, Index: 2},
			XID:        741,
			CommitTime: time.Date(2025, 3, 1, 12, 0, 0, 123456000, time.UTC),
			ID:         "3f0e4c1a-7d0c-4b53-9a53-0d6a2a1c9f11",
		},
		WrittenAt: time.Date(2025, 3, 1, 12, 0, 1, 0, time.UTC),
	}
}

// intent is the record in testdata/record-v1-intent.json.
func intent() Record {
	return Record{
		Pipeline:   "open_trainings",
		SystemID:   "7301234567890123456",
		Database:   "trainings",
		Timeline:   1,
		Slot:       "open_trainings",
		Generation: 1,
		Phase:      Intent,
		WrittenAt:  time.Date(2025, 3, 1, 11, 59, 0, 0, time.UTC),
	}
}

func encode(t *testing.T, r Record) []byte {
	t.Helper()
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func golden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The files stay as they are for as long as version 1 is read: they are what
// deployed pipelines have stored.
func TestRecordVersion1(t *testing.T) {
	tests := map[string]Record{
		"record-v1-active.json": active(),
		"record-v1-intent.json": intent(),
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			stored := golden(t, name)
			got, err := Decode(stored)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Errorf("read differently (-want +got):\n%s", diff)
			}
			var written bytes.Buffer
			if err := json.Indent(&written, encode(t, want), "", "  "); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(bytes.TrimSpace(stored)), written.String()); diff != "" {
				t.Errorf("written differently (-stored +written):\n%s", diff)
			}
		})
	}
}

func timesOf() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		micros := rapid.Int64Range(1, 250_000_000_000_000_000).Draw(t, "µs since 1970")
		return time.UnixMicro(micros).UTC()
	})
}

func records() *rapid.Generator[Record] {
	return rapid.Custom(func(t *rapid.T) Record {
		text := rapid.StringN(1, 20, -1)
		r := Record{
			Pipeline:       rapid.StringMatching(`[a-z][a-z0-9_-]{0,54}`).Draw(t, "pipeline"),
			SystemID:       rapid.StringMatching(`[1-9][0-9]{0,19}`).Draw(t, "system id"),
			Database:       text.Draw(t, "database"),
			Timeline:       rapid.Uint32Min(1).Draw(t, "timeline"),
			Slot:           rapid.StringMatching(`[a-z0-9_]{1,63}`).Draw(t, "slot"),
			Publication:    text.Draw(t, "publication"),
			Configuration:  text.Draw(t, "configuration"),
			KafkaClusterID: rapid.StringN(0, 20, -1).Draw(t, "cluster"),
			Generation:     rapid.Uint32Min(1).Draw(t, "generation"),
			Phase:          rapid.SampledFrom([]Phase{Intent, Active}).Draw(t, "phase"),
			Confirmed:      LSN(rapid.Uint64Min(1).Draw(t, "confirmed")),
			WrittenAt:      timesOf().Draw(t, "written at"),
		}
		if rapid.Bool().Draw(t, "has events") {
			r.Last = &Event{
				Position: outbox.Position{
					Generation: rapid.Uint32Range(1, r.Generation).Draw(t, "event's generation"),
					Commit:     rapid.Uint64Min(1).Draw(t, "commit"),
					Index:      rapid.Uint32().Draw(t, "index"),
				},
				XID:        rapid.Uint32Min(1).Draw(t, "xid"),
				CommitTime: timesOf().Draw(t, "commit time"),
				ID:         text.Draw(t, "id"),
			}
		}
		return r
	})
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := records().Draw(t, "record")
		b, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Fatalf("came back differently (-want +got):\n%s", diff)
		}
	})
}

func TestRecordTimesAreWrittenInUTC(t *testing.T) {
	local := active()
	zone := time.FixedZone("east", 2*60*60)
	local.WrittenAt = local.WrittenAt.In(zone)
	local.Last.CommitTime = local.Last.CommitTime.In(zone)
	if diff := cmp.Diff(string(encode(t, active())), string(encode(t, local))); diff != "" {
		t.Errorf("depends on the zone (-UTC +local):\n%s", diff)
	}
	if local.Last.CommitTime.Location() != zone {
		t.Error("Encode changed the caller's event")
	}
}

// incomplete are changes that make a good active record a bad one.
func incomplete() map[string]func(*Record) {
	return map[string]func(*Record){
		"pipeline":                  func(r *Record) { r.Pipeline = "" },
		"system_id":                 func(r *Record) { r.SystemID = "" },
		"database":                  func(r *Record) { r.Database = "" },
		"timeline":                  func(r *Record) { r.Timeline = 0 },
		"slot":                      func(r *Record) { r.Slot = "" },
		"publication_fingerprint":   func(r *Record) { r.Publication = "" },
		"configuration_fingerprint": func(r *Record) { r.Configuration = "" },
		"generation":                func(r *Record) { r.Generation = 0 },
		"phase":                     func(r *Record) { r.Phase = "" },
		"phase \"begun\"":           func(r *Record) { r.Phase = "begun" },
		"confirmed_lsn":             func(r *Record) { r.Confirmed = 0 },
		"written_at":                func(r *Record) { r.WrittenAt = time.Time{} },
		"not valid UTF-8":           func(r *Record) { r.Database = "caf\xe9" },
		"generation 1 to 1":         func(r *Record) { r.Last.Position.Generation = 2 },
		"last_event: position 0":    func(r *Record) { r.Last.Position.Generation = 0 },
		"no commit LSN":             func(r *Record) { r.Last.Position.Commit = 0 },
		"xid":                       func(r *Record) { r.Last.XID = 0 },
		"commit_time":               func(r *Record) { r.Last.CommitTime = time.Time{} },
		"last_event: id":            func(r *Record) { r.Last.ID = "" },
		"id is not valid UTF-8":     func(r *Record) { r.Last.ID = "\xff" },
	}
}

func TestEncodeRefusesWhatDecodeWould(t *testing.T) {
	for want, spoil := range incomplete() {
		t.Run(want, func(t *testing.T) {
			r := active()
			spoil(&r)
			b, err := r.Encode()
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Encode = %s, %v; want an error about %s", b, err, want)
			}
		})
	}
}

// object is the good active record as a JSON object, to be spoiled.
func object(t *testing.T) map[string]any {
	t.Helper()
	var o map[string]any
	decoder := json.NewDecoder(bytes.NewReader(encode(t, active())))
	decoder.UseNumber()
	if err := decoder.Decode(&o); err != nil {
		t.Fatal(err)
	}
	return o
}

func decodeObject(t *testing.T, o map[string]any) error {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Decode(b)
	if (r == nil) == (err == nil) {
		t.Fatalf("Decode = %v, %v", r, err)
	}
	return err
}

func wantUnreadable(t *testing.T, err error, mention string) {
	t.Helper()
	var unreadable *UnreadableError
	if !errors.As(err, &unreadable) {
		t.Fatalf("error is %v, want it to say unreadable", err)
	}
	if !strings.Contains(err.Error(), mention) {
		t.Errorf("error %q does not mention %s", err, mention)
	}
	if unreadable.Condition() != "history_diverged" || unreadable.Retryable() || unreadable.Remedy() == "" {
		t.Errorf("condition %s, retryable %t, remedy %q", unreadable.Condition(), unreadable.Retryable(), unreadable.Remedy())
	}
}

func TestDecodeNeedsEveryField(t *testing.T) {
	for name := range object(t) {
		t.Run(name, func(t *testing.T) {
			o := object(t)
			delete(o, name)
			wantUnreadable(t, decodeObject(t, o), name)
		})
	}
	for name := range object(t)["last_event"].(map[string]any) {
		t.Run("last_event "+name, func(t *testing.T) {
			o := object(t)
			delete(o["last_event"].(map[string]any), name)
			wantUnreadable(t, decodeObject(t, o), name)
		})
	}
}

func TestDecodeRefusesMeaninglessValues(t *testing.T) {
	tests := map[string]struct {
		field   string
		value   any
		mention string
	}{
		"LSN as a number":     {"confirmed_lsn", 23803720, "confirmed_lsn"},
		"garbage LSN":         {"confirmed_lsn", "tomorrow", "tomorrow"},
		"zero LSN":            {"confirmed_lsn", "0/0", "confirmed_lsn"},
		"null LSN":            {"confirmed_lsn", nil, "confirmed_lsn"},
		"negative timeline":   {"timeline", -1, "timeline"},
		"wide timeline":       {"timeline", 1 << 32, "timeline"},
		"system id as number": {"system_id", 7301234567890123456, "system_id"},
		"unknown phase":       {"phase", "paused", "paused"},
		"garbage time":        {"written_at", "yesterday", "yesterday"},
		"five-digit year":     {"written_at", "9999-12-31T23:59:59-01:00", "written_at"},
		"event of no object":  {"last_event", "none", "last_event"},
		"empty event":         {"last_event", map[string]any{}, "position"},
		"unknown field":       {"colour", "blue", "colour"},
		"capitalised field":   {"Slot", "other", "Slot"},
		"version 0":           {"v", 0, "v is 0"},
		"version -1":          {"v", -1, "v is -1"},
		"version null":        {"v", nil, "v is 0"},
		"version as text":     {"v", "1", "string"},
		"version with part":   {"v", 1.5, "1.5"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := object(t)
			o[test.field] = test.value
			wantUnreadable(t, decodeObject(t, o), test.mention)
		})
	}
}

func TestDecodeRefusesWhatIsNoRecord(t *testing.T) {
	good := string(encode(t, active()))
	for name, text := range map[string]string{
		"nothing":   "",
		"null":      "null",
		"array":     "[]",
		"number":    "1",
		"cut short": good[:len(good)-1],
		"two":       good + good,
		"binary":    "\x00\x01",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode([]byte(text))
			wantUnreadable(t, err, "unreadable")
		})
	}
}

func TestDecodeOfALaterVersion(t *testing.T) {
	for name, text := range map[string]string{
		"next, other fields": `{"v":2,"position":"elsewhere"}`,
		"next, same fields":  strings.Replace(string(encode(t, active())), `{"v":1,`, `{"v":2,`, 1),
		"far":                `{"v":9223372036854775807}`,
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Decode([]byte(text))
			var tooNew *TooNewError
			if r != nil || !errors.As(err, &tooNew) {
				t.Fatalf("Decode = %v, %v", r, err)
			}
			if tooNew.Condition() != "checkpoint_too_new" || tooNew.Retryable() || tooNew.Remedy() == "" {
				t.Errorf("condition %s, retryable %t, remedy %q", tooNew.Condition(), tooNew.Retryable(), tooNew.Remedy())
			}
		})
	}
}

// FuzzDecode: whatever is accepted can be written again and means the same.
func FuzzDecode(f *testing.F) {
	f.Add(golden(f, "record-v1-active.json"))
	f.Add(golden(f, "record-v1-intent.json"))
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(encode(t, *r))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Errorf("came back differently (-first +again):\n%s", diff)
		}
	})
}

func TestMarkName(t *testing.T) {
	if got, want := MarkName("open_trainings", "0"), "checkpoint/open_trainings/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
