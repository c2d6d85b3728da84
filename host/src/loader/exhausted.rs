//! Which task a plugin has run when another of its tasks is given up, and what a host refuses of such declarations: a task
//! that is not there, and tasks that would run each other for ever.

use super::description::TaskDescription;

/// Checks every hook of the plugin.
pub(super) fn check(tasks: &[TaskDescription]) -> Result<(), String> {
    let find = |name: &str| tasks.iter().find(|task| task.name == name);
    for task in tasks {
        let Some(hook) = &task.exhausted else { continue };
        let name = &task.name;
        if find(hook).is_none() {
            return Err(format!(
                "declares the task `{hook}` to be run when `{name}` is exhausted, which it does not have"
            ));
        }
        let mut way = vec![name.as_str()];
        let mut next = Some(hook.as_str());
        while let Some(at) = next {
            let is_back = at == name;
            // A circle further on is told of by its own tasks.
            if !is_back && way.contains(&at) {
                break;
            }
            way.push(at);
            if is_back {
                let way = way.join("` → `");
                return Err(format!(
                    "declares tasks to be run when others are exhausted that would run each other for ever: `{way}`"
                ));
            }
            next = find(at).and_then(|task| task.exhausted.as_deref());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::description::Description;
    use serde_json::json;

    fn parse(hooks: &[(&str, Option<&str>)]) -> Result<Description, String> {
        let task = |(name, hook): &(&str, Option<&str>)| json!({ "name": name, "input_schema": {}, "exhausted": hook });
        let tasks: Vec<_> = hooks.iter().map(task).collect();
        let description = json!({ "name": "orders", "version": "1.0.0", "routes": [], "tasks": tasks });
        Description::parse(description.to_string().as_bytes())
    }

    #[test]
    fn hook_names_another_task_of_the_plugin_and_none_comes_back_to_where_it_began() {
        assert!(parse(&[("a", Some("b")), ("b", Some("c")), ("c", None)]).is_ok());
        let missing = parse(&[("a", Some("gone"))]).unwrap_err();
        assert!(missing.contains("`gone`") && missing.contains("does not have"), "{missing}");
        let itself = parse(&[("a", Some("a"))]).unwrap_err();
        assert!(itself.contains("`a` → `a`"), "{itself}");
        let circle = parse(&[("z", Some("a")), ("a", Some("b")), ("b", Some("a"))]).unwrap_err();
        assert!(circle.contains("`a` → `b` → `a`"), "{circle}");
    }
}
