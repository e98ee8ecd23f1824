package records

import (
	"slices"
	"strings"
	"testing"
)

const toolURL = "https://dl.example/tool.zip"

func TestAskersAreBounded(t *testing.T) {
	var a Askers
	for uid := range maxUsers + 10 {
		a = a.Add(Askers{Users: []int{uid}})
		a = a.Add(Askers{Users: []int{uid}, URLs: []string{toolURL, toolURL + strings.Repeat("x", uid)}})
	}
	if len(a.Users) != maxUsers || a.Users[0] != 10 || len(a.URLs) != maxURLs {
		t.Errorf("%d users from %d on, %d URLs", len(a.Users), a.Users[0], len(a.URLs))
	}
	before := slices.Clone(a.Users)
	if a.Add(Askers{Users: []int{7777}}); !slices.Equal(a.Users, before) {
		t.Error("adding changed what it was added to")
	}
}
