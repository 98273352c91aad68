-- Of each record that comes in it is looked up whether a version is set aside.
CREATE INDEX quarantine_of ON quarantine (bucket_no, kind, id);
