use super::*;
use crate::address::Priority;
use crate::id::{CallId, InstanceId};
use crate::name::Name;

fn address() -> TaskAddress {
    TaskAddress {
        plugin: "orders".parse().unwrap(),
        major: 12,
        task: "fulfil".parse().unwrap(),
        priority: Priority::Normal,
        id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
    }
}

#[test]
fn task_subjects_read_back() {
    let subjects = Subjects::default();
    let subject = subjects.task(&address());
    assert_eq!(subject, "cardcage.task.orders.v12.fulfil.p5.01890a5d-ac96-774b-bcce-b302099a8057");
    assert_eq!(subjects.parse_task(&subject), Ok(address()));
    let at = address();
    let filter = subjects.lane_filter(&at.plugin, at.major, &at.task, Priority::Low);
    assert_eq!(subjects.parse_task_filter(&filter), Some((at.plugin, at.major, at.task, Priority::Low)));
    assert_eq!(subjects.parse_due(&subjects.due(&address())), Ok(address()));
    assert!(subjects.parse_due(&subject).is_err());
    let line = subjects.line("abc", &address());
    assert_eq!((subjects.parse_line(&line), subjects.key_of_line(&line)), (Ok(address()), Some("abc")));
    assert!(subjects.parse_line(&subject).is_err());
    assert!(Subjects::new("other".parse().unwrap()).parse_task(&subject).is_err());
    for bad in [
        "cardcage.task.orders.v1.fulfil.p5",
        "cardcage.task.orders.v01.fulfil.p5.01890a5d-ac96-774b-bcce-b302099a8057",
        "cardcage.task.orders.v1.fulfil.p4.01890a5d-ac96-774b-bcce-b302099a8057",
        "cardcage.task.orders.v1.fulfil.p5.01890a5d-ac96-774b-bcce-b302099a8057.x",
    ] {
        assert!(subjects.parse_task(bad).is_err(), "{bad}");
    }
}

#[test]
fn names_are_as_documented() {
    let s = Subjects::default();
    let (plugin, task): (Name, Name) = ("orders".parse().unwrap(), "fulfil".parse().unwrap());
    assert_eq!(s.tasks_stream(&plugin), "cardcage_TASKS_orders");
    assert_eq!(s.task_consumer(&plugin, 1, &task), "orders_v1_fulfil");
    assert_eq!(s.task_filter(&plugin, 1, &task), "cardcage.task.orders.v1.fulfil.*.*");
    assert_eq!(s.lane_consumer(&plugin, 1, &task, Priority::Normal), "orders_v1_fulfil");
    assert_eq!(s.lane_consumer(&plugin, 1, &task, Priority::Low), "orders_v1_fulfil_LOW");
    assert_eq!(s.lane_filter(&plugin, 1, &task, Priority::High), "cardcage.task.orders.v1.fulfil.p1.*");
    assert_eq!(s.done_mapping(), "cardcage.done.{{wildcard(1)}}");
    assert_eq!(s.call(&plugin, 3, &task), "cardcage.call.orders.v3.fulfil");
}

#[test]
fn call_subjects_read_back() {
    let s = Subjects::default();
    let call = CallId::generate();
    let instance = InstanceId::generate("worker").unwrap();
    assert_eq!(s.parse_callio(&s.callio(&instance, call)), Some(call));
    assert_eq!(s.parse_callctl(&s.callctl(call)), Some(call));
    assert_eq!(s.parse_callctl("cardcage.callctl.x"), None);
}

#[test]
fn dead_letters_subjects_read_back() {
    let (s, at) = (Subjects::default(), address());
    let subject = s.dead(&at.plugin, &at.task, at.id);
    assert_eq!(s.parse_dead(&subject), Some((at.plugin.clone(), at.task.clone(), at.id)));
    assert_eq!(s.parse_dead(&format!("{subject}.x")), None);
    assert_eq!(s.deads_of(Some(&at.plugin), None), "cardcage.dead.orders.*.*");
}
