use serde_json::json;

use super::rig::{Rig, with_admin, with_user};

#[tokio::test]
async fn an_admin_adds_lists_and_removes_users() {
    let rig = Rig::start();
    let add = with_admin(json!({"name": "new", "password_hash": "p", "admin": null}));
    assert_eq!(rig.post("/users/add", &add).await.text(), r#"{"status":"OK"}"#);
    assert_eq!(rig.post("/users/add", &add).await.status, 409);
    let users = rig.post("/users/list", &with_admin(json!({}))).await.json();
    let entry = |name: &str, admin: bool| json!({"user_id": name, "admin": admin});
    assert_eq!(
        users,
        json!({"users": [entry("123", false), entry("new", false), entry("root", true)]})
    );
    assert_eq!(
        rig.post("/users/remove", &with_admin(json!({"name": "new"})))
            .await
            .status,
        200
    );
    assert_eq!(
        rig.post("/users/remove", &with_admin(json!({"name": "new"})))
            .await
            .status,
        404
    );
    assert_eq!(
        rig.post("/users/remove", &with_admin(json!({"name": "root"})))
            .await
            .status,
        409
    );
}

#[tokio::test]
async fn others_may_only_change_their_own_password() {
    let rig = Rig::start();
    for (path, body) in [
        ("/users/list", json!({})),
        ("/users/add", json!({"name": "new", "password_hash": "p"})),
        ("/users/remove", json!({"name": "root"})),
        ("/users/passwd", json!({"name": "root", "password_hash": "mine"})),
        ("/users/passwd", json!({"name": "nobody", "password_hash": "mine"})),
    ] {
        let reply = rig.post(path, &with_user(body)).await;
        assert_eq!(
            (reply.status, reply.text()),
            (403, r#"{"detail":"only an admin may do this"}"#),
            "{path}"
        );
    }
    let own = with_user(json!({"name": "123", "password_hash": "changed"}));
    assert_eq!(rig.post("/users/passwd", &own).await.status, 200);
    assert_eq!(rig.post("/users/passwd", &own).await.status, 401);
    let others = with_admin(json!({"name": "123", "password_hash": "abc123"}));
    assert_eq!(rig.post("/users/passwd", &others).await.status, 200);
    let unknown = with_admin(json!({"name": "nobody", "password_hash": "p"}));
    assert_eq!(rig.post("/users/passwd", &unknown).await.status, 404);
}

#[tokio::test]
async fn a_new_user_needs_a_name_and_a_secret() {
    let rig = Rig::start();
    let reply = rig.post("/users/add", &with_admin(json!({"name": "x"}))).await;
    assert_eq!(reply.json()["detail"][0]["loc"], json!(["body", "password_hash"]));
    let reply = rig
        .post("/users/passwd", &with_admin(json!({"name": "", "password_hash": ""})))
        .await;
    assert_eq!(
        (reply.status, reply.json()["detail"].as_array().unwrap().len()),
        (422, 2)
    );
}
