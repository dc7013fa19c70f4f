package mapping

import (
	"fmt"
	"strings"
)

const (
	placeholder = "{aggregate_type}"

	// maxTopicLen and the rules of illegalAt and unusable are those of Kafka's
	// org.apache.kafka.common.internals.Topic.
	maxTopicLen = 249

	// maxInterned bounds the memory for topic names, which come from row data.
	// Kafka clusters have fewer topics than that; beyond it each message gets
	// a string of its own.
	maxInterned = 10_000
)

// topics makes the topic names of one table. It is not safe for concurrent use.
type topics struct {
	prefix, suffix string
	fixed          bool              // prefix is the name
	known          map[string]string // by aggregate type
}

// parseTopic reads a template: a topic name in which {aggregate_type} may
// stand once.
func parseTopic(template string) (*topics, error) {
	prefix, suffix, found := strings.Cut(template, placeholder)
	for _, part := range []string{prefix, suffix} {
		if err := checkLiteral(part); err != nil {
			return nil, fmt.Errorf("topic %q: %w", template, err)
		}
	}
	if found {
		if n := len(prefix) + len(suffix); n >= maxTopicLen {
			return nil, fmt.Errorf("topic %q: %d characters beside %s leave none of the %d that a topic's name may have", template, n, placeholder, maxTopicLen)
		}
		return &topics{prefix: prefix, suffix: suffix, known: map[string]string{}}, nil
	}
	if reason := unusable(template); reason != "" {
		return nil, fmt.Errorf("topic %q: %s", template, reason)
	}
	return &topics{prefix: prefix, fixed: true}, nil
}

func checkLiteral(part string) error {
	at := illegalAt(part)
	switch {
	case at < 0:
		return nil
	case strings.HasPrefix(part[at:], placeholder):
		return fmt.Errorf("%s stands twice", placeholder)
	case part[at] == '{' || part[at] == '}':
		return fmt.Errorf("the only placeholder is %s, once", placeholder)
	}
	return fmt.Errorf("%q may not be in a topic's name: a-z, A-Z, 0-9, '.', '_' and '-' may", []rune(part[at:])[0])
}

// name returns the topic for an aggregate type. A reason other than "" says
// why there is none, without quoting the type: it is row data.
func (t *topics) name(aggregateType []byte) (topic, reason string) {
	if topic, found := t.known[string(aggregateType)]; found { // does not allocate
		return topic, ""
	}
	if reason := t.refuse(aggregateType); reason != "" {
		return "", reason
	}
	topic = t.prefix + string(aggregateType) + t.suffix
	if reason := unusable(topic); reason != "" {
		return "", "with this aggregate type the topic can't be named: " + reason
	}
	if len(t.known) < maxInterned {
		t.known[topic[len(t.prefix):len(topic)-len(t.suffix)]] = topic
	}
	return topic, ""
}

// refuse looks at the type before a string is made of it: it may be long.
func (t *topics) refuse(aggregateType []byte) (reason string) {
	n := len(t.prefix) + len(aggregateType) + len(t.suffix)
	if n > maxTopicLen {
		return fmt.Sprintf("with the aggregate type's %d bytes the topic's name would have %d, the limit is %d", len(aggregateType), n, maxTopicLen)
	}
	if at := illegalAt(aggregateType); at >= 0 {
		return fmt.Sprintf("character %d of the aggregate type (%d bytes) may not be in a topic's name: a-z, A-Z, 0-9, '.', '_' and '-' may", at+1, len(aggregateType))
	}
	return ""
}

// illegalAt returns the index of the first character that no topic's name may
// have, -1 if there is none. As all before it are ASCII, the index counts
// characters.
func illegalAt[T string | []byte](s T) int {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return i
		}
	}
	return -1
}

// unusable says why a name of legal characters is no topic's.
func unusable(name string) (reason string) {
	switch {
	case name == "":
		return "the name is empty"
	case name == "." || name == "..":
		return "the name is \".\" or \"..\", which Kafka reserves"
	case len(name) > maxTopicLen:
		return fmt.Sprintf("the name has %d characters, the limit is %d", len(name), maxTopicLen)
	}
	return ""
}
